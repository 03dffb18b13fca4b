package session_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/owtp-go/owtp/session"
	"github.com/owtp-go/owtp/session/memory"
)

// Every field is either checked or needs no check; a new one has to be put here.
func TestConfigFields(t *testing.T) {
	bad := map[string][]any{
		"Gclifetime":       {int64(-1), int64(1 << 40)},
		"Maxlifetime":      {int64(-1), int64(1 << 40)},
		"AbsoluteLifetime": {int64(-2), int64(1 << 40)},
		"ProviderConfig":   {"nonsense"},
		"SessionIDPrefix":  {strings.Repeat("x", 129)},
		"MaxSessions":      {-1},
		"MaxSessionBytes":  {-1, 1, session.MaxValueLen + 1},
		"StoreTimeout":     {-time.Second, time.Microsecond, time.Hour},
		"StoreKey":         {make([]byte, 31), make([]byte, 32), []byte{}},
		"PreviousStoreKey": {make([]byte, 32), bytes.Repeat([]byte{1}, 32)},
		// TestUseStoreKeyYields says what it does.
		"InsecurePlaintext": nil,
		"Now":               nil,
		"Logger":            nil,
	}
	session.RegisterOnce("memory", memory.Open)
	for f := range reflect.TypeFor[session.ManagerConfig]().Fields() {
		values, known := bad[f.Name]
		if !known {
			t.Errorf("field %s is not accounted for", f.Name)
		}
		for _, v := range values {
			var cfg session.ManagerConfig
			reflect.ValueOf(&cfg).Elem().FieldByIndex(f.Index).Set(reflect.ValueOf(v))
			if m, err := session.NewManager(t.Context(), "memory", &cfg); err == nil {
				m.Close()
				t.Errorf("%s = %v is no error", f.Name, v)
			}
		}
	}
}

// Keys are checked together.
func TestConfigKeys(t *testing.T) {
	for want, cfg := range map[string]session.ManagerConfig{
		"PreviousStoreKey has 3 bytes":           {StoreKey: keyA, PreviousStoreKey: []byte("abc")},
		"PreviousStoreKey is the key that seals": {StoreKey: keyA, PreviousStoreKey: bytes.Clone(keyA)},
		"PreviousStoreKey is all zeros":          {StoreKey: keyA, PreviousStoreKey: make([]byte, 32)},
		"without StoreKey":                       {PreviousStoreKey: keyA},
		"StoreKey and InsecurePlaintext":         {StoreKey: keyA, InsecurePlaintext: true},
	} {
		if m, err := session.NewManager(t.Context(), "memory", &cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
			if err == nil {
				m.Close()
			}
		}
	}
}

// A store is opened without the keys, and the caller may overwrite its own.
func TestConfigKeysStayInTheManager(t *testing.T) {
	var seen session.ManagerConfig
	name := "keyless-" + strings.ReplaceAll(t.Name(), "/", "-")
	session.Register(name, func(ctx context.Context, cfg *session.ManagerConfig) (session.Provider, error) {
		seen = *cfg
		return newElsewhere(t), nil
	})
	key, previous := bytes.Clone(keyA), bytes.Clone(keyB)
	m, err := session.NewManager(t.Context(), name, &session.ManagerConfig{StoreKey: key, PreviousStoreKey: previous})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if seen.StoreKey != nil || seen.PreviousStoreKey != nil {
		t.Error("the store got the keys")
	}
	if !bytes.Equal(key, keyA) || !bytes.Equal(previous, keyB) {
		t.Error("the caller's keys were changed")
	}
	clear(key)
	set(t, m, "peer", "user", "kkk")
	if v := managerOf(t, m.Provider(), session.ManagerConfig{StoreKey: keyA}).GetString("peer", "user"); v != "kkk" {
		t.Errorf("after the caller overwrote its key: %q", v)
	}
}

func TestConfigJSON(t *testing.T) {
	var cfg session.ManagerConfig
	text := `{"gclifetime":10,"maxlifetime":20,"absoluteLifetime":-1,"providerConfig":"x","sessionIDPrefix":"p","maxSessions":5,"maxSessionBytes":1000,"storeTimeout":500000000}`
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		t.Fatal(err)
	}
	cfg.StoreKey, cfg.PreviousStoreKey = keyA, keyB // never written
	if back, err := json.Marshal(cfg); err != nil || string(back) != text {
		t.Errorf("JSON: %s, %v", back, err)
	}
}

func TestConfigIsCopied(t *testing.T) {
	cfg := &session.ManagerConfig{}
	m, err := session.NewManager(t.Context(), "memory", cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if !reflect.DeepEqual(*cfg, session.ManagerConfig{}) {
		t.Errorf("the caller's config was changed: %v", cfg)
	}
}

func TestConfigHidesSecrets(t *testing.T) {
	key, previous := []byte("the store key, 32 octets of it ok"), []byte("another key that is previous 32..")
	cfg := session.ManagerConfig{ProviderConfig: "redis://:hunter2@host", SessionIDPrefix: "visible", Now: time.Now, StoreKey: key[:32], PreviousStoreKey: previous[:32]}
	var printed bytes.Buffer
	for _, v := range []any{cfg, &cfg, []session.ManagerConfig{cfg}, struct{ C session.ManagerConfig }{cfg}, map[string]any{"c": &cfg}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&printed, verb+"\n", v)
		}
	}
	fmt.Fprintln(&printed, cfg.String(), cfg.GoString())
	slog.New(slog.NewTextHandler(&printed, nil)).Info("x", "cfg", cfg, "p", &cfg)
	slog.New(slog.NewJSONHandler(&printed, nil)).Info("x", "cfg", cfg, "p", &cfg)
	m := managerOf(t, newElsewhere(t), cfg)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&printed, verb+"\n", m)
	}
	secrets := []string{"hunter2", fmt.Sprintf("%x", "hunter2")}
	for _, k := range [][]byte{key, previous} {
		part := k[4:16]
		secrets = append(secrets, string(part), fmt.Sprintf("%x", part), fmt.Sprintf("%X", part), strings.Trim(fmt.Sprint(part), "[]"),
			strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", part), "[]byte{"), "}"), base64.StdEncoding.EncodeToString(k[:15]))
	}
	for _, secret := range secrets {
		if strings.Contains(printed.String(), secret) {
			t.Errorf("a secret is printed:\n%s", printed.String())
		}
	}
	if !strings.Contains(printed.String(), "visible") {
		t.Errorf("nothing else is printed either:\n%s", printed.String())
	}
}
