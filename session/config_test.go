package session_test

import (
	"bytes"
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
		"Now":              nil,
		"Logger":           nil,
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

func TestConfigJSON(t *testing.T) {
	var cfg session.ManagerConfig
	text := `{"gclifetime":10,"maxlifetime":20,"absoluteLifetime":-1,"providerConfig":"x","sessionIDPrefix":"p","maxSessions":5,"maxSessionBytes":1000,"storeTimeout":500000000}`
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		t.Fatal(err)
	}
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
	cfg := session.ManagerConfig{ProviderConfig: "redis://:hunter2@host", SessionIDPrefix: "visible", Now: time.Now}
	var printed bytes.Buffer
	for _, v := range []any{cfg, &cfg, []session.ManagerConfig{cfg}, struct{ C session.ManagerConfig }{cfg}, map[string]any{"c": &cfg}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&printed, verb+"\n", v)
		}
	}
	fmt.Fprintln(&printed, cfg.String(), cfg.GoString())
	slog.New(slog.NewTextHandler(&printed, nil)).Info("x", "cfg", cfg, "p", &cfg)
	slog.New(slog.NewJSONHandler(&printed, nil)).Info("x", "cfg", cfg, "p", &cfg)
	for _, secret := range []string{"hunter2", fmt.Sprintf("%x", "hunter2")} {
		if strings.Contains(printed.String(), secret) {
			t.Errorf("the password is printed:\n%s", printed.String())
		}
	}
	if !strings.Contains(printed.String(), "visible") {
		t.Errorf("nothing else is printed either:\n%s", printed.String())
	}
}
