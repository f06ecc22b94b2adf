package plane

// Devices: what carries an interface's frames. memif is one; tests and other links attach theirs.

import (
	"context"
	"sync"

	"go.fd.io/govpp/api"
)

// Port is a device with queues of frames. memif.Interface implements it.
type Port interface {
	// Run keeps the port working until ctx ends.
	Run(ctx context.Context) error
	// ReadBatch copies frames into bufs[k][:sizes[k]] and returns how many, at least one; it blocks until then, and fails when
	// Run has ended. Longer frames than their buffers are dropped. One goroutine per queue.
	ReadBatch(queue int, bufs [][]byte, sizes []int) (int, error)
	// WriteBatch takes frames and returns how many; it copies them and never blocks. Safe for concurrent use.
	WriteBatch(queue int, frames [][]byte) (int, error)
}

// device is a running port.
type device struct {
	port   Port
	queues int
	cancel context.CancelFunc
	done   sync.WaitGroup
	failed chan error // Run's error, if it had one
}

// startDevice makes an interface of a port and runs it.
func (p *Plane) startDevice(i *iface, port Port, queues int) *device {
	ctx, cancel := context.WithCancel(p.ctx)
	d := &device{port: port, queues: queues, cancel: cancel, failed: make(chan error, 1)}
	i.device = d
	p.ctl.Lock()
	p.mu.Lock()
	p.addIfaceLocked(i)
	p.mu.Unlock()
	p.ctl.Unlock()
	d.done.Add(1 + queues)
	p.wg.Go(func() {
		defer d.done.Done()
		if err := port.Run(ctx); err != nil {
			p.log.WithError(err).WithField("interface", i.name).Error("device failed")
			d.failed <- err
		}
	})
	for q := range queues {
		p.wg.Go(func() {
			defer d.done.Done()
			p.pump(i, d, q)
		})
	}
	return d
}

// stop ends a device and waits for its goroutines. No lock may be held.
func (d *device) stop() {
	d.cancel()
	d.done.Wait()
}

// pump carries one receive queue.
func (p *Plane) pump(i *iface, d *device, queue int) {
	start := headroom - etherLen
	if i.rawIP {
		start = headroom
	}
	stride := (headroom + p.cfg.MaxFrame + 63) &^ 63
	slab := make([]byte, batchSize*stride)
	slots, bufs, sizes := make([][]byte, batchSize), make([][]byte, batchSize), make([]int, batchSize)
	for k := range slots {
		slots[k] = slab[k*stride : (k+1)*stride : (k+1)*stride]
		bufs[k] = slots[k][start : headroom+p.cfg.MaxFrame]
	}
	w := p.newWorker()
	w.queue = queue
	for {
		n, err := d.port.ReadBatch(queue, bufs, sizes)
		if err != nil {
			return
		}
		w.enter()
		w.receive(i, slots, start, sizes[:n])
		w.leave()
	}
}

// AttachPort makes an ethernet interface of any port, with its link up. There is no such message in VPP's API; it is for tests
// and for links in the same process.
// Errors: INVALID_VALUE for less than one queue; SYSCALL_ERROR_1 after Run has ended.
func (p *Plane) AttachPort(name string, mac [6]byte, port Port, queues int) (uint32, error) {
	if queues < 1 {
		return NoInterface, api.INVALID_VALUE
	}
	if mac == ([6]byte{}) {
		mac = madeUpMAC()
	}
	i := p.newIface(name, KindPort, mac)
	i.link = true
	p.memifMu.Lock()
	defer p.memifMu.Unlock()
	if p.stopped {
		return NoInterface, api.SYSCALL_ERROR_1
	}
	p.startDevice(i, port, queues)
	return i.index, nil
}

// DetachPort removes what AttachPort made, and waits for its port's Run to end.
// Errors: INVALID_SW_IF_INDEX.
func (p *Plane) DetachPort(idx uint32) error { return p.removeDevice(idx, KindPort) }

// removeDevice removes an interface with a device; it waits until nothing of it runs.
func (p *Plane) removeDevice(idx uint32, kind string) error {
	p.memifMu.Lock()
	defer p.memifMu.Unlock()
	var gone *iface
	err := p.change(idx, func(i *iface) error {
		if i.kind != kind {
			return api.INVALID_SW_IF_INDEX
		}
		gone = i
		p.removeIfaceLocked(i)
		return nil
	})
	if err != nil {
		return err
	}
	gone.device.stop()
	p.hosts.removeNIC(gone)
	return nil
}
