package owtp

// StoreKeys are the keys that the node holds for its stores.
func (n *OWTPNode) StoreKeys() [][]byte { return [][]byte{n.cfg.StoreKey, n.cfg.PreviousStoreKey} }
