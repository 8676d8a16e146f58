package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// epochFile holds, in Config.DataDir, the epoch of the last start: a line with
// its format, then a decimal number.
const (
	epochFile   = "epoch"
	epochFormat = "parley-epoch 1"
)

// maxEpoch leaves room to raise an epoch. As a time in milliseconds it is far away.
const maxEpoch = 1 << 62

// nextEpoch returns the epoch of this start: more than the last one, and the
// time in milliseconds when that is more still.
func nextEpoch(dir string, now uint64, log *slog.Logger) (uint64, error) {
	if dir == "" {
		return now, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return 0, fmt.Errorf("cluster: data directory: %w", err)
	}
	path := filepath.Join(dir, epochFile)
	last, err := readEpoch(path)
	var damaged *damagedError
	switch {
	case errors.As(err, &damaged):
		aside := fmt.Sprintf("%s.damaged-%d", path, time.Now().UnixMilli())
		if err := os.Rename(path, aside); err != nil {
			return 0, fmt.Errorf("cluster: data directory: %w, and it cannot be set aside: %w", damaged, err)
		}
		log.Warn("epoch file set aside, the clock gives the epoch", "moved_to", aside, "err", damaged)
	case err != nil:
		return 0, fmt.Errorf("cluster: data directory: %w", err)
	}
	epoch := max(last+1, now)
	if err := writeEpoch(dir, epoch); err != nil {
		return 0, fmt.Errorf("cluster: data directory: %w", err)
	}
	return epoch, nil
}

type damagedError struct{ path, reason string }

func (e *damagedError) Error() string { return fmt.Sprintf("%s is damaged: %s", e.path, e.reason) }

// readEpoch returns 0 when there is no file.
func readEpoch(path string) (uint64, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	number, ok := strings.CutPrefix(string(b), epochFormat+"\n")
	if !ok {
		return 0, &damagedError{path, "its first line is not " + strconv.Quote(epochFormat)}
	}
	number, ok = strings.CutSuffix(number, "\n")
	epoch, err := strconv.ParseUint(number, 10, 64)
	if !ok || err != nil || epoch >= maxEpoch {
		return 0, &damagedError{path, "its second line is no epoch"}
	}
	return epoch, nil
}

// writeEpoch replaces the file so that a crash leaves the old or the new one.
func writeEpoch(dir string, epoch uint64) (err error) {
	f, err := os.CreateTemp(dir, epochFile+".tmp-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if _, err = fmt.Fprintf(f, "%s\n%d\n", epochFormat, epoch); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), filepath.Join(dir, epochFile)); err != nil {
		return err
	}
	if d, err := os.Open(dir); err == nil { // the rename is durable once the directory is; not every system can sync one
		_ = d.Sync()
		_ = d.Close()
	}
	return nil
}
