package main
import ("context";"fmt";"os";"time";"rlr/memif";"rlr/wg";"net";"net/netip";"runtime";"syscall";"strings")
func main(){
 d,_:=os.MkdirTemp("","r"); ctx:=context.Background()
 k1,_:=wg.NewPrivateKey();k2,_:=wg.NewPrivateKey()
 mk:=func(n byte,k wg.PrivateKey,p wg.Key,port int,peer string)*memif.Interface{
  s:=fmt.Sprintf("%s/%d",d,n)
  m,_:=memif.New(memif.Config{Role:memif.Master,Socket:s}); go m.Run(ctx)
  l,err:=wg.New(wg.Config{Name:fmt.Sprint("tun",n),PrivateKey:k,Listen:netip.MustParseAddrPort(fmt.Sprintf("127.0.0.1:%d",port)),Socket:s,MAC:net.HardwareAddr{2,0,0,0,n,0},DataplaneMAC:net.HardwareAddr{2,0,0,0,n,1},Peer:wg.Peer{PublicKey:p,Endpoint:peer,Keepalive:25*time.Second}}); if err!=nil{panic(err)}
  go func(){fmt.Println(l.Run(ctx))}()
  go func(){b:=make([][]byte,32);for i:=range b{b[i]=make([]byte,2048)};sz:=make([]int,32);for{_,e:=m.ReadBatch(0,b,sz);if e!=nil{return}}}()
  return m}
 a:=mk(1,k1,k2.Public(),45001,"127.0.0.1:45002"); _ = mk(2,k2,k1.Public(),45002,"127.0.0.1:45001")
 time.Sleep(time.Second)
 show:=func(w string){b,_:=os.ReadFile("/proc/self/status");var ru syscall.Rusage;syscall.Getrusage(0,&ru);for _,l:=range strings.Split(string(b),"\n"){if strings.HasPrefix(l,"VmRSS")||strings.HasPrefix(l,"RssShmem")||strings.HasPrefix(l,"RssAnon"){fmt.Print(l," ")}};var ms runtime.MemStats;runtime.ReadMemStats(&ms);fmt.Println(w,"cpu",ru.Utime.Nano()/1e6+ru.Stime.Nano()/1e6,"ms heap",ms.HeapAlloc>>20,ms.HeapSys>>20, "goroutines",runtime.NumGoroutine())}
 show("start"); time.Sleep(10*time.Second); show("idle 10s")
 p:=make([]byte,1414);p[0]=0x45;p[2]=0x05;p[3]=0x78;copy(p[12:],[]byte{10,0,0,1,10,0,0,2})
 f:=append([]byte{2,0,0,0,1,0,2,0,0,0,1,1,8,0},p[:1400]...)
 bt:=make([][]byte,32);for i:=range bt{bt[i]=f}
 end:=time.Now().Add(5*time.Second);sent:=0
 for time.Now().Before(end){n,_:=a.WriteBatch(0,bt);sent+=n;if n==0{runtime.Gosched()}}
 show(fmt.Sprint("flood ",sent)); time.Sleep(10*time.Second); show("idle after")
}
