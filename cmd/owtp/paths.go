package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// hasModeBits says whether a file's mode tells who can read it. On Windows what
// Go reports there says nothing.
const hasModeBits = runtime.GOOS != "windows"

// configPath returns the path of one of the tool's own files. It creates
// nothing.
func configPath(name string) (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("no folder for settings: %w; name the file yourself", err)
	}
	return filepath.Join(dir, "owtp", name), nil
}

func defaultKeyFile() (string, error)    { return configPath("node.pem") }
func defaultKnownPeers() (string, error) { return configPath("known_peers") }

// makePrivateDir creates the folder that a private file goes into, if it is
// missing, so that nobody else can look inside.
func makePrivateDir(file string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("creating the folder for %s: %w", file, err)
	}
	return nil
}

// checkPrivate refuses a secret that others can read. It asks the opened file,
// not its path: between a look at a path and the opening of it the path can
// come to mean another file.
func checkPrivate(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", f.Name())
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 && hasModeBits {
		return fmt.Errorf("%s can be read or changed by others (mode %04o): run chmod 600 %[1]s, and if others had access to this machine, make a new one", f.Name(), perm)
	}
	return nil
}

// createNew creates a private file that must not exist yet. what names it in
// the error.
func createNew(path, what string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%s exists and is never overwritten: move the old %s away or choose another name", path, what)
	}
	if err != nil {
		return nil, fmt.Errorf("creating the %s: %w", what, err)
	}
	return f, nil
}

// mustNotExist is createNew's answer early, before anything expensive.
func mustNotExist(path, what string) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s exists and is never overwritten: move the old %s away or choose another name", path, what)
	}
	return nil
}
