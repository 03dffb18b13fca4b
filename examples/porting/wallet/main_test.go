package main

import (
	"bytes"
	"go/scanner"
	"go/token"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/owtp-go/owtp/internal/leakcheck"
)

func TestMain(m *testing.M) {
	if os.Getenv("OWTP_WALLET_RUN") != "" {
		main()
		return
	}
	os.Exit(leakcheck.RunMain(m))
}

const (
	begin = "key: true true 64 32\nlistening: true true\n"
	calls = "done login true\nthe wallet says 601, not for you! \"\"\ndone, bye \"ada\"\nnot reached true\npeer: 1 true true true true true ws\nbank: to-bank true\n7 true\n"
	end   = "listening: false\n"
)

// TestProgram runs the program in a process of its own: it ends where something
// is wrong. The client that speaks the old version finds what the new one finds.
func TestProgram(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "OWTP_WALLET_RUN=1")
	var problems bytes.Buffer
	cmd.Stderr = &problems
	printed, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, problems.Bytes())
	}
	if want := begin + calls + calls + end; string(printed) != want {
		t.Errorf("the program prints\n%s\nwant\n%s", printed, want)
	}
}

// names are what programs for OpenWallet's package use of it.
const names = `
	NewCertificate RandomPrivateKey NodeConfig Cert TimeoutSEC NewNode RandomOWTPNode NewOWTPNode NewRandomCertificate NewSessionManager ManagerConfig Gclifetime GC
	ID KeyPair PublicKeyBytes PrivateKeyBytes
	NodeID Certificate Peerstore SetPeerstore HandleFunc HandlePrepareFunc HandleFinishFunc Listen SetOpenHandler SetCloseHandler Connect KeyAgreement Call ClosePeer
	Close CloseListener Listening IsConnectPeer OnlinePeers GetOnlinePeer ConnectAndCall CallSync SetReloadPeerInfoHandler
	PID IsHost IsConnected LocalAddr RemoteAddr ConnectConfig EnableKeyAgreement
	Params Response ResponseStopRun Method RemoteAddress Peer Resp SetSession GetSession DelSession DestroySession
	Status Msg JsonData
	Address ConnectType Account Password Exchange WriteQueueName ReadQueueName EnableSSL ReadBufferSize WriteBufferSize EnableSignature Websocket MQ
	StatusSuccess ErrBadRequest ErrUnauthorized ErrSecretKeyInvalid ErrNotFoundMethod ErrRequestTimeout ErrReplayAttack ErrNetworkDisconnected ErrInternalServerError
	ErrResponseMethodDiffer ErrKeyAgreementFailed ErrDenialOfService ErrCustomError
	PeerInfo Config SavePeer Get GetString Put Delete Destroy`

// TestNames: both programs together use every one of them.
func TestNames(t *testing.T) {
	used := make(map[string]bool)
	for _, file := range []string{"main.go", "../main.go"} {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var s scanner.Scanner
		set := token.NewFileSet()
		s.Init(set.AddFile(file, -1, len(src)), src, nil, 0)
		for _, tok, lit := s.Scan(); tok != token.EOF; _, tok, lit = s.Scan() {
			if tok == token.IDENT {
				used[lit] = true
			}
		}
	}
	all := strings.Fields(names)
	if len(all) < 80 {
		t.Fatalf("%d names", len(all))
	}
	for _, name := range all {
		if !used[name] {
			t.Errorf("neither program uses %s", name)
		}
	}
}
