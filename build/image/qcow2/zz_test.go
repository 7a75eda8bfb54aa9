package qcow2
import ("testing";"os";"fmt";"syscall";"os/exec")
func cpu(who int) float64 { var r syscall.Rusage; syscall.Getrusage(who, &r); return float64(r.Utime.Nano()+r.Stime.Nano())/1e9 }
func BenchmarkCPU(b *testing.B) {
	raw := "/dev/shm/img-raw"
	defer os.Remove(raw); defer os.Remove("/dev/shm/img-ours"); defer os.Remove("/dev/shm/img-theirs")
	size := benchDisk(b, raw)
	disk, _ := os.Open(raw)
	c0 := cpu(syscall.RUSAGE_CHILDREN)
	exec.Command("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", "-o", "compression_type=zstd", raw, "/dev/shm/img-theirs").Run()
	fmt.Printf("qemu cpu %.2f size %d\n", cpu(syscall.RUSAGE_CHILDREN)-c0, fileSize(b, "/dev/shm/img-theirs"))
	for _, l := range []int{1,3} {
		c0 = cpu(syscall.RUSAGE_SELF)
		f, _ := os.Create("/dev/shm/img-ours")
		Write(f, disk, size, Options{Compress: true, Level: l})
		fmt.Printf("level %d cpu %.2f size %d\n", l, cpu(syscall.RUSAGE_SELF)-c0, fileSize(b, "/dev/shm/img-ours"))
	}
}
