package state

import (
	"errors"
	"fmt"
	"log/slog"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Cache is the block cache that all partitions of a process share.
type Cache struct{ cache *pebble.Cache }

// NewCache makes a cache of the given bytes.
func NewCache(bytes int64) *Cache { return &Cache{cache: pebble.NewCache(bytes)} }

// Close releases the cache. Stores that still use it keep it alive.
func (c *Cache) Close() { c.cache.Unref() }

// Store is one partition's map. Reads are safe for concurrent use; writes have one
// caller.
type Store struct {
	db *pebble.DB
}

// ErrCorrupt says that files differ from what was written: wipe the store and rebuild
// it from the changelog.
var ErrCorrupt = errors.New("state is corrupt")

// isTransient reports whether opening failed for a reason outside the files: another
// process has them open, or the machine lacks a resource.
func isTransient(err error) bool {
	for _, e := range []error{syscall.EAGAIN, syscall.EACCES, syscall.EPERM, syscall.ENOSPC, syscall.EDQUOT,
		syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EROFS, syscall.EIO} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// markCorruption wraps a corruption error of Pebble with ErrCorrupt.
func markCorruption(err error) error {
	if pebble.IsCorruptionError(err) {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}

// memtableBytes bounds what a crash loses (the changelog has it) and what a flush has
// to write.
const memtableBytes = 16 << 20

// OpenDir opens or creates the store in a directory of this machine.
func OpenDir(dir string, cache *Cache, log *slog.Logger) (*Store, error) {
	return Open(vfs.Default, dir, cache, log)
}

// Open opens or creates the store in dir.
func Open(fs vfs.FS, dir string, cache *Cache, log *slog.Logger) (*Store, error) {
	opts := &pebble.Options{
		FS:                 fs,
		Cache:              cache.cache,
		DisableWAL:         true,
		MemTableSize:       memtableBytes,
		FormatMajorVersion: pebble.FormatNewest,
		Logger:             logger{log},
		// By default Pebble ends the process when it meets damage. Here it is an error,
		// and the partition is rebuilt.
		EventListener: &pebble.EventListener{DataCorruption: func(i pebble.DataCorruptionInfo) {
			log.Error("state is corrupt", "path", i.Path, "error", i.Details)
		}},
	}
	for i := range opts.Levels {
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		opts.Levels[i].FilterType = pebble.TableFilter
	}
	db, err := pebble.Open(dir, opts)
	if err != nil {
		if !isTransient(err) { // Pebble does not mark all damage of its files
			err = fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		return nil, fmt.Errorf("opening state in %s: %w", dir, err)
	}
	return &Store{db: db}, nil
}

// Wipe removes a store that is closed.
func Wipe(fs vfs.FS, dir string) error {
	if err := fs.RemoveAll(dir); err != nil {
		return fmt.Errorf("wiping state in %s: %w", dir, err)
	}
	return nil
}

// Get appends the value of key to buf; ok is false if there is none.
func (s *Store) Get(key, buf []byte) (value []byte, ok bool, err error) {
	v, closer, err := s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return buf, false, nil
	}
	if err != nil {
		return buf, false, fmt.Errorf("reading state: %w", markCorruption(err))
	}
	buf = append(buf, v...)
	return buf, true, closer.Close()
}

// Scan calls yield for each row of [lower, upper) in ascending order until it returns
// false. Key and value are valid during the call.
func (s *Store) Scan(lower, upper []byte, yield func(key, value []byte) bool) error {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return fmt.Errorf("scanning state: %w", err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		if !yield(it.Key(), it.Value()) {
			break
		}
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return fmt.Errorf("scanning state: %w", markCorruption(err))
	}
	return nil
}

// PrefixEnd returns the smallest key above every key with the prefix, for Scan's upper
// bound; nil if there is none.
func PrefixEnd(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] < 0xff {
			end := append([]byte(nil), prefix[:i+1]...)
			end[i]++
			return end
		}
	}
	return nil
}

// Batch is a set of writes that become visible together, and survive a crash together.
type Batch struct{ b *pebble.Batch }

// NewBatch makes an empty batch.
func (s *Store) NewBatch() *Batch { return &Batch{b: s.db.NewBatch()} }

// Set writes a row. The bytes are copied.
func (b *Batch) Set(key, value []byte) error { return b.b.Set(key, value, nil) }

// Delete removes a row.
func (b *Batch) Delete(key []byte) error { return b.b.Delete(key, nil) }

// DeleteRange removes the rows of [lower, upper).
func (b *Batch) DeleteRange(lower, upper []byte) error { return b.b.DeleteRange(lower, upper, nil) }

// Len returns the batch's size in bytes.
func (b *Batch) Len() int { return b.b.Len() }

// Commit makes the batch visible. It is durable after the next Flush.
func (b *Batch) Commit() error {
	if err := b.b.Commit(pebble.NoSync); err != nil {
		return fmt.Errorf("writing state: %w", err)
	}
	return b.b.Close()
}

// Set writes one row outside of any batch.
func (s *Store) Set(key, value []byte) error {
	if err := s.db.Set(key, value, pebble.NoSync); err != nil {
		return fmt.Errorf("writing state: %w", err)
	}
	return nil
}

// Flush makes everything written so far durable, and waits for it.
func (s *Store) Flush() error {
	if err := s.db.Flush(); err != nil {
		return fmt.Errorf("flushing state: %w", err)
	}
	return nil
}

// Bytes returns the disk space that the store takes.
func (s *Store) Bytes() uint64 { return s.db.Metrics().DiskSpaceUsage() }

// Close flushes the store and closes it.
func (s *Store) Close() error {
	if err := errors.Join(s.db.Flush(), s.db.Close()); err != nil {
		return fmt.Errorf("closing state: %w", err)
	}
	return nil
}

// logger passes on Pebble's errors and drops the rest.
type logger struct{ log *slog.Logger }

// Infof implements pebble.Logger.
func (l logger) Infof(string, ...any) {}

// Errorf implements pebble.Logger.
func (l logger) Errorf(format string, a ...any) { l.log.Error("pebble: " + fmt.Sprintf(format, a...)) }

// Fatalf implements pebble.Logger: it must not return.
func (l logger) Fatalf(format string, a ...any) { panic("pebble: " + fmt.Sprintf(format, a...)) }

// Eventf implements pebble's tracing logger.
func (l logger) Eventf(_ any, _ string, _ ...any) {}
