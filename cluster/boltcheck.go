package cluster

import (
	"errors"
	"io/fs"
	"os"
)

// checkBolt looks at the file before bolt does. expect says that there must be something in it.
func checkBolt(path string, expect bool) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !expect:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("it is gone, but this node has had state before")
	case err != nil:
		return err
	case info.Size() == 0 && expect:
		return errors.New("it is empty, but this node has had state before")
	}
	return nil
}
