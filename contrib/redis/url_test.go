package redis

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestURL(t *testing.T) {
	for text, want := range map[string]string{
		"redis://h":                         "[h:6379] 0   cluster=false",
		"redis://":                          "[localhost:6379] 0   cluster=false",
		"redis://u:p%40%2F@h:1/2":           "[h:1] 2 u p@/ cluster=false",
		"redis://:p@[::1]:1/2?db=2":         "[[::1]:1] 2  p cluster=false",
		"rediss://u:p@h":                    "[h:6379] 0 u p cluster=false",
		"unix://u:p@/run/redis.sock?db=3":   "[/run/redis.sock] 3 u p cluster=false",
		"redis://u:p@a:1?addr=b:2&addr=c:3": "[a:1 b:2 c:3] 0 u p cluster=true",
		"redis://u:p@a:1?cluster=true":      "[a:1] 0 u p cluster=true",
		"redis://s:q@a?master_name=m&addr=b:2&username=u&password=p&db=4": "[a:26379 b:2] 4 u p cluster=false",
	} {
		c, err := parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		d := c.driver
		if got := fmt.Sprintf("%v %d %s %s cluster=%v", d.Addrs, d.DB, d.Username, d.Password, c.cluster); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
		if (d.TLSConfig != nil) != strings.HasPrefix(text, "rediss:") || d.TLSConfig != nil && d.TLSConfig.InsecureSkipVerify {
			t.Errorf("%s: TLS %+v", text, d.TLSConfig)
		}
		if !d.ContextTimeoutEnabled || d.ReadTimeout != defaultTimeout || d.PoolSize != defaultPool || d.MaxActiveConns != defaultPool {
			t.Errorf("%s: %+v", text, d)
		}
	}
	c, err := parse("redis://s:q@h?master_name=m&wait_replicas=2&wait_timeout=2s&prefix=x:&pool_size=5&dial_timeout=4&max_retries=0")
	if err != nil {
		t.Fatal(err)
	}
	d := c.driver
	if c.options != (Options{Prefix: "x:", WaitReplicas: 2, WaitTimeout: 2 * time.Second}) || d.PoolSize != 5 || d.DialTimeout != 4*time.Second ||
		d.ReadTimeout != 5*time.Second || d.MaxRetries != -1 || d.SentinelUsername != "s" || d.SentinelPassword != "q" {
		t.Errorf("%+v, %+v", c.options, d)
	}
}

// TestBadURL: what is wrong is named, and no part of a secret is repeated.
func TestBadURL(t *testing.T) {
	for text, want := range map[string]string{
		"http://u:hunter2@h":                    "not a URL like",
		"redis:hunter2":                         "not a URL like",
		"redis://u:hunter2@h:port":              "not a URL like",
		"redis://u:a/hunter2@h":                 "not a URL like",
		"redis://u:12/hunter2@h":                "not a URL like",
		"redis://u:a#hunter2@h":                 "not a URL like",
		"redis://u:12#hunter2@h":                "not a URL like",
		"redis://u:%zzhunter2@h":                "not a URL like",
		"redis://u:12?hunter2@h":                "unknown (known:",
		"redis://u:12?a&hunter2&b@h":            "unknown (known:",
		"redis://u:hunter2\x00@h":               "not a URL like",
		"redis://h/hunter2":                     "not a URL like",
		"redis://h/0/hunter2":                   "not a URL like",
		"redis://h?pool_size=hunter2":           "pool_size must be",
		"redis://h?pool_size=0":                 "pool_size must be",
		"redis://h?pool_size=99999":             "pool_size must be",
		"redis://h?pool_size=2&pool_size=3":     "pool_size is given 2 times",
		"redis://h?read_timeout=hunter2":        "read_timeout must be",
		"redis://h?read_timeout=-1s":            "read_timeout must be",
		"redis://h?read_timeout=0":              "read_timeout must be",
		"redis://h?cluster=hunter2":             "cluster is neither",
		"redis://h?addr=hunter2":                "of the form host:port",
		"redis://h/3?addr=h:2":                  "database 0 only",
		"redis://h?skip_verify=true":            "unknown",
		"redis://h?ca_file=hunter2":             "rediss:// only",
		"rediss://h?ca_file=hunter2":            "ca_file cannot be read",
		"rediss://h?cert_file=hunter2":          "belong together",
		"unix://h/run/redis.sock":               `"unix" URL`,
		"unix:///run/redis.sock?addr=h:2":       `"unix" URL`,
		"redis://h?min_idle_conns=40":           "may not be more than pool_size",
		"redis://" + strings.Repeat("h", 20000): "at most",
	} {
		c, err := parse(text)
		if err == nil {
			t.Errorf("%.60s: no error, but %+v", text, c)
			continue
		}
		if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%.60s: %v, want %q", text, err, want)
		}
	}
}
