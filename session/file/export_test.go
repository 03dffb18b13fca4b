package file

import "context"

// Block keeps the writer busy until release is called.
func (s *Store) Block() (release func()) {
	busy, free := make(chan struct{}), make(chan struct{})
	go s.submit(context.Background(), 0, func(*changes) error {
		close(busy)
		<-free
		return nil
	})
	<-busy
	return func() { close(free) }
}

// QueueLen is how many writes may wait.
const QueueLen = queueLen

// Waiting is how many writes wait now.
func (s *Store) Waiting() int { return len(s.queue) }

// SetLimit sets the hard limit of the file's size.
func (s *Store) SetLimit(bytes int) { s.db.MaxSize = bytes }
