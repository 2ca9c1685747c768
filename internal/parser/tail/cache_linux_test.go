package tail

import (
	"os"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// residentBytes returns how many bytes of a range of a file the page cache holds. It uses another system call than the
// reader.
func residentBytes(t *testing.T, path string, from, to int64) (n int64) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	memory, err := unix.Mmap(int(f.Fd()), from, int(to-from), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(memory) }()
	pages := make([]byte, (len(memory)+os.Getpagesize()-1)/os.Getpagesize())
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&memory[0])), uintptr(len(memory)),
		uintptr(unsafe.Pointer(&pages[0]))); errno != 0 {
		t.Fatal(errno)
	}
	for _, p := range pages {
		n += int64(p&1) * int64(os.Getpagesize())
	}
	return n
}

func TestCatchingUpLeavesThePageCacheUnchanged(t *testing.T) {
	const size, far = 104 << 20, 104<<20 - farBehind
	d := newDisk(t)
	d.append("node_fills/20260430/8", strings.Repeat(strings.Repeat("x", 1<<14-1)+"\n", size>>14))
	path := d.path("node_fills/20260430/8")
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	d.noError(err)
	defer func() { _ = f.Close() }()
	d.noError(f.Sync())
	d.noError(unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
	if n := residentBytes(t, path, 0, size); n > 1<<20 {
		t.Skipf("this file system keeps %d MiB in memory regardless of the advice", n>>20)
	}
	read := func() {
		r := open(t, newSetup(d), nil)
		defer r.tail.Close()
		for r.tail.Stats().Unread > 0 {
			r.step(0)
			r.got, r.positions = nil, nil
		}
	}
	read()
	// The system fills and evicts the page cache in pieces of some MiB, by its own rules.
	if n := residentBytes(t, path, 0, far); n > far/4 {
		t.Errorf("%d of %d MiB that were read far behind are still in memory; want almost none", n>>20, far>>20)
	}
	if n := residentBytes(t, path, size-farBehind, size); n < farBehind*3/4 {
		t.Errorf("%d of %d MiB near the end are in memory; want all", n>>20, farBehind>>20)
	}

	// Pages that another process brought in stay.
	_, err = f.ReadAt(make([]byte, size), 0)
	d.noError(err)
	read()
	if n := residentBytes(t, path, 0, size); n < size*3/4 {
		t.Errorf("%d of %d MiB that were in memory still are; want all", n>>20, size>>20)
	}
}
