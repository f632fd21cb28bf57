package fsm

// overlay holds the objects that an entry has put so far, nil for those it dropped. Looking an object up in the
// transaction itself would make the next change copy the tree's whole path again, because memdb hands out a clone.
type overlay map[objectKey]any

type objectKey struct{ table, id string }

// object gives what the entry made of an object, and whether it touched it at all.
func (o overlay) object(tbl string, id any) (any, bool) {
	name, _ := id.(string)
	raw, ok := o[objectKey{tbl, name}]
	return raw, ok
}

// put notes an object, or that it is gone. Tombstones are never looked up.
func (o overlay) put(tbl string, object any, gone bool) {
	id, ok := idOf(object)
	if gone {
		object = nil
	}
	if ok {
		o[objectKey{tbl, id}] = object
	}
}

// idOf gives the name that an object is looked up by, false when it never is.
func idOf(o any) (string, bool) {
	switch o := o.(type) {
	case *Cluster:
		return "cluster", true
	case *Project:
		return o.Name, true
	case *Deployment:
		return o.ID, true
	case *Node:
		return o.ID, true
	case *RemovedNode:
		return o.ID, true
	case *Token:
		return o.ID, true
	case *JoinToken:
		return o.ID, true
	case *Blob:
		return o.Digest, true
	case *Repair:
		return o.ID, true
	}
	return "", false
}
