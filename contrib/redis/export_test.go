package redis

// AskNow makes the store's next call ask whether the server evicts.
func AskNow(s *Store) { s.guard.next.Store(0) }
