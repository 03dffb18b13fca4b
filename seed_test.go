package owtp_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/session"
)

// The samples below are the README's that the project began with, down to its
// comments. Added are imports, package prefixes, commas and the declarations
// that the samples leave out; nothing else.

// infoLog is the sample's log, of which only Infof is used.
type infoLog struct {
	mu    sync.Mutex
	lines []string
}

func (l *infoLog) Infof(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprintf(format, args...))
}

func (l *infoLog) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}

func seedConfiguredNode() *owtp.OWTPNode {
	//1. 使用配置文件创建
	cert, err := owtp.NewCertificate(owtp.RandomPrivateKey())
	if err != nil {
		return nil
	}

	config := owtp.NodeConfig{
		Cert:       cert, //配置节点证书
		TimeoutSEC: 60,   //请求超时时间
	}

	host := owtp.NewNode(config)
	return host
}

func seedRandomNode() *owtp.OWTPNode {
	//2. 随机创建一个带证书的节点
	host := owtp.RandomOWTPNode()
	return host
}

func seedSessions(host *owtp.OWTPNode) *owtp.SessionManager {
	var globalSessions *owtp.SessionManager

	//创建一个全局的会话管理器，详细资料参考sesssion包的README.md
	globalSessions, _ = owtp.NewSessionManager("memory", &session.ManagerConfig{
		Gclifetime: 10,
	})
	go globalSessions.GC()

	//设置节点Peerstore指向一个全局的会话管理
	host.SetPeerstore(globalSessions)
	return globalSessions
}

// 外置的业务方法
func getInfo(ctx *owtp.Context) {
	//记录当前连接的信息到session，用于上下文操作
	ctx.SetSession("username", "kkk")

	ctx.Resp = owtp.Response{
		Status: 0,
		Msg:    "success",
		Result: map[string]interface{}{
			"getInfo": "hi boy",
		},
	}
}

func seedServer(host *owtp.OWTPNode, log *infoLog, closed func(owtp.PeerInfo)) {
	wsHost := host

	//配置路由的业务方法
	host.HandleFunc("getInfo", getInfo)

	//配置处理业务前的准备过程【可选】
	host.HandlePrepareFunc(func(ctx *owtp.Context) {

	})

	//配置处理业务后的结束过程【可选】
	host.HandleFinishFunc(func(ctx *owtp.Context) {
		peer := owtp.PeerInfo{ID: ctx.PID}

		//断开节点连接，长连接才响应，HTTP为短连接，不会响应
		host.ClosePeer(peer.ID)
	})

	//开启端口监听HTTP连接请求
	host.Listen(
		owtp.ConnectConfig{
			Address:         ":9432",
			ConnectType:     owtp.HTTP,
			EnableSignature: true, //开启数字签名
		})

	//开启端口监听websocket连接请求
	host.Listen(
		owtp.ConnectConfig{
			Address:     ":9433",
			ConnectType: owtp.Websocket,
		})

	//更多复杂的连接配置可查看ConnectConfig类

	//监听长连接打开，处理后续业务（HTTP为短连接，不支持）
	host.SetOpenHandler(func(n *owtp.OWTPNode, peer owtp.PeerInfo) {
		log.Infof("peer[%s] connected", peer.ID)
		log.Infof("peer[%+v] config", peer.Config)
	})

	//监听长连接断开，处理后续业务（HTTP为短连接，不支持）
	wsHost.SetCloseHandler(func(n *owtp.OWTPNode, peer owtp.PeerInfo) {
		closed(peer)
	})
}

func seedClientHTTP(client *owtp.OWTPNode) error {
	//配置路由的业务方法
	client.HandleFunc("getInfo", getInfo)

	//通过HTTP连接服务端
	err := client.Connect("testhost", owtp.ConnectConfig{
		Address:         ":9432",
		ConnectType:     owtp.HTTP,
		EnableSignature: true, //开启数字签名
	})

	if err != nil {
		return err
	}
	return seedCall(client)
}

func seedClientWebsocket(client *owtp.OWTPNode) error {
	//配置路由的业务方法
	client.HandleFunc("getInfo", getInfo)

	//或通过Websocket连接服务端
	err := client.Connect("testhost", owtp.ConnectConfig{
		Address:     ":9433",
		ConnectType: owtp.Websocket,
	})

	if err != nil {
		return err
	}
	return seedCall(client)
}

func seedCall(client *owtp.OWTPNode) error {
	//向已连接的testhost主机，开启协商密码，加密方式AES
	err := client.KeyAgreement("testhost", "aes")
	if err != nil {
		return err
	}

	params := map[string]interface{}{
		"name": "chance",
		"age":  18,
	}

	//向已连接的testhost主机，发起业务请求
	//参数1：主机ID，参数2：路由的方法名，参数3：业务参数，参数4：是否同步线程，参数5：响应结果处理
	//参数4 sync = true，程序会等待响应结果处理完，才走程序下一步处理。
	err = client.Call("testhost", "getInfo", params, true, func(resp owtp.Response) {

		result := resp.JsonData()
		symbols := result.Get("getInfo")
		fmt.Printf("getInfo: %v\n", symbols)
	})

	if err != nil {
		return err
	}
	return nil
}

// printed returns what f writes to the standard output. Tests that use it do
// not run in parallel with others.
func printed(t *testing.T, f func()) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout := os.Stdout
	os.Stdout = w
	text := make(chan string)
	go func() {
		b, _ := io.ReadAll(r)
		text <- string(b)
	}()
	func() {
		defer func() { os.Stdout = stdout }()
		f()
	}()
	w.Close()
	defer r.Close()
	return <-text
}

// seedPorts waits for the samples' ports, which another test of this machine
// may hold for a moment.
func seedPorts(t *testing.T) {
	t.Helper()
	for _, port := range []string{":9432", ":9433"} {
		var err error
		for range 100 {
			var l net.Listener
			if l, err = net.Listen("tcp", port); err == nil {
				l.Close()
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		if err != nil {
			t.Fatalf("the samples' port %s is not free on this machine: %v", port, err)
		}
	}
}

func TestSeedAsWritten(t *testing.T) {
	for _, create := range []struct {
		name string
		node func() *owtp.OWTPNode
	}{{"NewNode", seedConfiguredNode}, {"RandomOWTPNode", seedRandomNode}} {
		t.Run(create.name, func(t *testing.T) {
			seedPorts(t)
			host := create.node()
			defer host.Close()
			sessions := seedSessions(host)
			defer sessions.Close()
			var log infoLog
			closed := make(chan owtp.PeerInfo, 16)
			seedServer(host, &log, func(p owtp.PeerInfo) { closed <- p })
			if !host.Listening(owtp.HTTP) || !host.Listening(owtp.Websocket) {
				t.Fatal("Listen returned and a port is not bound")
			}
			overHTTP, overWS := owtp.RandomOWTPNode(), owtp.RandomOWTPNode()
			defer overHTTP.Close()
			defer overWS.Close()
			out := printed(t, func() {
				if err := seedClientHTTP(overHTTP); err != nil {
					t.Errorf("HTTP: %v", err)
				}
				if err := seedClientWebsocket(overWS); err != nil {
					t.Errorf("WebSocket: %v", err)
				}
			})
			if want := "getInfo: hi boy\ngetInfo: hi boy\n"; out != want {
				t.Errorf("printed %q, want %q", out, want)
			}
			if got := host.Peerstore().GetString(overHTTP.NodeID(), "username"); got != "kkk" {
				t.Errorf("the session of the HTTP client has username %q", got)
			}
			// The finish function closed the proved peer; HTTP peers have
			// nothing to close.
			for {
				select {
				case p := <-closed:
					if p.ID != overWS.NodeID() {
						continue // the anonymous connection before the agreement
					}
				case <-time.After(20 * time.Second):
					t.Fatal("the close handler was not called for the WebSocket client")
				}
				break
			}
			if text := log.text(); !strings.Contains(text, "peer["+overWS.NodeID()+"] connected") ||
				!strings.Contains(text, "ConnectType:ws") || strings.Contains(text, overHTTP.NodeID()) {
				t.Errorf("the log of the open handler is\n%s", text)
			}
		})
	}
}

// TestSeedForms runs the client's part of the samples in every form over every
// transport, on ports that are free.
func TestSeedForms(t *testing.T) {
	for _, w := range inBothFormats(allWays()) { // one after the other: they share the standard output
		t.Run(w.String(), func(t *testing.T) {
			s := newStage(t, w)
			s.host.HandleFunc("getInfo", getInfo)
			s.connect(t)
			params := map[string]interface{}{
				"name": "chance",
				"age":  18,
			}
			for _, sync := range []bool{true, false} {
				out := printed(t, func() {
					done := make(chan struct{})
					err := s.client.Call("testhost", "getInfo", params, sync, func(resp owtp.Response) {
						defer close(done)
						result := resp.JsonData()
						symbols := result.Get("getInfo")
						fmt.Printf("getInfo: %v\n", symbols)
						if resp.Status != 0 || resp.Msg != "success" || !resp.OK() {
							t.Errorf("response %+v", resp)
						}
					})
					if err != nil {
						t.Error(err)
						return
					}
					if sync {
						select {
						case <-done:
						default:
							t.Error("a sync Call returned before its callback had run")
						}
					}
					<-done
				})
				if out != "getInfo: hi boy\n" {
					t.Errorf("sync %v: printed %q", sync, out)
				}
			}
		})
	}
}
