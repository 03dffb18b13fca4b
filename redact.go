package owtp

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"strings"
)

// redactedConfig has ConnectConfig's fields and none of its methods.
type redactedConfig ConnectConfig

func (c ConnectConfig) redacted() redactedConfig {
	if c.Password != "" {
		c.Password = "[redacted]"
	}
	if i := strings.LastIndexByte(c.Address, '@'); i >= 0 {
		c.Address = "[redacted]" + c.Address[i:]
	}
	return redactedConfig(c)
}

// Format prints the configuration without its password, whatever the verb.
func (c ConnectConfig) Format(f fmt.State, _ rune) {
	r := reflect.ValueOf(c.redacted())
	io.WriteString(f, "{")
	space := ""
	for i := range r.NumField() {
		if v := r.Field(i); !v.IsZero() && v.Kind() != reflect.Func && v.Kind() != reflect.Pointer {
			fmt.Fprintf(f, "%s%s:%v", space, r.Type().Field(i).Name, v.Interface())
			space = " "
		}
	}
	io.WriteString(f, "}")
}

// LogValue logs the configuration without its password.
func (c ConnectConfig) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(c)) }

// MarshalJSON leaves the password out.
func (c ConnectConfig) MarshalJSON() ([]byte, error) {
	r := c.redacted()
	r.Password = ""
	return json.Marshal(r)
}
