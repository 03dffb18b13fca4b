package session_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/owtp-go/owtp/session"
	"github.com/owtp-go/owtp/session/memory"
)

func Example() {
	session.RegisterOnce("memory", memory.Open)
	sessions, err := session.NewManager(context.Background(), "memory", &session.ManagerConfig{Gclifetime: 10})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sessions.Close()
	go sessions.GC()

	if err := sessions.Put("peer", "username", "kkk"); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(sessions.GetString("peer", "username"))
	// Output: kkk
}

// A request that began before a logout cannot undo it.
func ExampleSession() {
	ctx := context.Background()
	store, _ := memory.New(memory.Options{})
	defer store.Close()
	sessions, _ := session.ManagerOf(store, nil)
	defer sessions.Close()
	sessions.Put("peer", "username", "kkk")

	slow := sessions.Session("peer")
	name, err := session.Get[string](ctx, slow, "username")
	fmt.Println(name, err)

	sessions.Destroy("peer")
	fmt.Println(errors.Is(slow.Set(ctx, "cart", 3), session.ErrEnded))
	// Output:
	// kkk <nil>
	// true
}

type User struct {
	Name  string
	Since time.Time
}

func ExampleRegisterType() {
	if err := session.RegisterType(User{}); err != nil {
		fmt.Println(err)
		return
	}
	store, _ := memory.New(memory.Options{})
	defer store.Close()
	sessions, _ := session.ManagerOf(store, nil)
	defer sessions.Close()

	sessions.Put("peer", "user", User{"kkk", time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)})
	user, err := session.Get[User](context.Background(), sessions.Session("peer"), "user")
	fmt.Println(user.Name, user.Since, err)
	// Output: kkk 2030-01-02 03:04:05 +0000 UTC <nil>
}

// A node's own state lies beside the sessions, under keys of its own.
func ExampleProvider() {
	ctx := context.Background()
	var store session.Provider
	store, _ = memory.New(memory.Options{})
	defer store.Close()

	key := session.NodePrefix + "binding/" + session.EscapeKey("test host")
	version, err := store.PutIfAbsent(ctx, key, []byte("first"), 0)
	fmt.Println(version != 0, err)
	version, err = store.PutIfAbsent(ctx, key, []byte("second"), 0)
	fmt.Println(version != 0, err)
	r, err := store.Get(ctx, key)
	fmt.Println(key, string(r.Value), err)
	// Output:
	// true <nil>
	// false <nil>
	// n/binding/test%20host first <nil>
}
