package memif

// Regions: the shared memory. The slave makes one region with all rings and buffers in it (as VPP's slave does);
// the master maps whatever regions the slave sends.
//
// A mapping whose file shrinks kills the process that touches it (SIGBUS), so the master takes only files that are
// sealed against shrinking and are at least as long as promised. VPP (clib_mem_vm_create_fd) and libmemif
// (memif_add_region) both set F_SEAL_SHRINK. The one exception are the hugepage buffers of a VPP slave in zero-copy mode,
// which VPP creates without sealing: they are taken, and a session with such memory runs with faults turned into panics
// that end the session (contain). That costs a little for each batch, so the others do without.

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// maxRegionSize is what 32-bit offsets can reach, with a buffer at the end.
const maxRegionSize = 1<<32 + maxBufferSize

// newRegion makes sealed shared memory of the given size.
func newRegion(name string, size int) (fd int, mem []byte, err error) {
	fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, nil, fmt.Errorf("memfd_create: %w", err)
	}
	defer func() {
		if err != nil {
			closeFD(fd)
			fd = -1
		}
	}()
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return fd, nil, fmt.Errorf("size shared memory to %d bytes: %w", size, err)
	}
	seals := unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return fd, nil, fmt.Errorf("seal shared memory: %w", err)
	}
	mem, err = unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fd, nil, fmt.Errorf("map %d bytes of shared memory: %w", size, err)
	}
	return fd, mem, nil
}

// mapRegion checks and maps memory that a slave sent, and says whether it can shrink. It closes fd in every case: a
// mapping does not need it.
func mapRegion(fd int, size uint64) (mem []byte, shrinks bool, err error) {
	defer closeFD(fd)
	if size == 0 || size > maxRegionSize {
		return nil, false, fmt.Errorf("memory region of %d bytes", size)
	}
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return nil, false, fmt.Errorf("memory region is not a memfd: %w", err)
	}
	if seals&unix.F_SEAL_SHRINK == 0 {
		var fs unix.Statfs_t
		if err := unix.Fstatfs(fd, &fs); err != nil || fs.Type != unix.HUGETLBFS_MAGIC {
			return nil, false, errors.New("memory region is not sealed against shrinking")
		}
		shrinks = true
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, false, fmt.Errorf("memory region: %w", err)
	}
	if st.Size < 0 || uint64(st.Size) < size {
		return nil, false, fmt.Errorf("memory region of %d bytes is %d bytes short", size, size-uint64(max(st.Size, 0)))
	}
	mem, err = unix.Mmap(fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, false, fmt.Errorf("map memory region: %w", err)
	}
	return mem, shrinks, nil
}

var errMemoryGone = errors.New("peer took its memory away")

// contain is deferred around accesses to memory that can shrink, with the goroutine's previous setting. A fault ends
// the session; every other panic goes on.
func contain(before bool, fail func(error), err *error) {
	debug.SetPanicOnFault(before)
	r := recover()
	if r == nil {
		return
	}
	fault, ok := r.(interface {
		runtime.Error
		Addr() uintptr
	})
	if !ok {
		panic(r)
	}
	fail(fmt.Errorf("%w: %w", errMemoryGone, fault))
	*err = errSessionEnded
}

func unmapAll(regions [][]byte) {
	for _, mem := range regions {
		_ = unix.Munmap(mem) // fails only for memory that was never mapped
	}
}
