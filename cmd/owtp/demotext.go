package main

// A text is a sentence in the languages of the demonstration.
type text struct{ en, zh string }

func (t text) in(lang string) string {
	if lang == "zh" {
		return t.zh
	}
	return t.en
}

var (
	textIntro = text{
		`OWTP: two nodes in this process talk over the loopback interface, and an
eavesdropper sits on the wire between them. A node's name is made from its key.
  server  %s
  client  %s`,
		`OWTP：本进程内的两个节点通过本机回环网络通信，中间有一名窃听者。
节点的名字由它的密钥算出。
  服务端  %s
  客户端  %s`,
	}
	textBroken = text{"    NOT AS PROMISED: %s", "    与承诺不符：%s"}

	textSummary = text{
		"\nAll %d promises were kept, in %v. The same handlers answered over all three transports and in every mode.",
		"\n%d 项承诺全部兑现，用时 %v。三种传输、各种模式用的都是同一套路由方法。",
	}
	textSummaryBroken = text{
		"\n%d of %d promises were NOT kept. This build must not be trusted.",
		"\n%[2]d 项承诺中有 %[1]d 项未兑现。此版本不可信任。",
	}

	textHTTP      = text{"Over HTTP", "通过 HTTP"}
	textWebSocket = text{"Over WebSocket", "通过 WebSocket"}
	textQueue     = text{"Through a message broker (NATS, in this process), whose owner is the attacker", "通过消息队列（本进程内的 NATS），攻击者就是队列服务器的主人"}
	textAttacks   = text{"Three attacks, which fail", "三种攻击，均告失败"}

	textOpen = text{
		"open: the call works, and the eavesdropper reads the answer off the wire.",
		"明文：调用成功，而窃听者能从线路上读到应答。",
	}
	textSigned = text{
		"signed: both sides prove who they are, and the saved answer verifies offline.",
		"签名：双方证明各自身份，保存下来的应答可离线验签。",
	}
	textSealedAES = text{
		"sealed, aes: keys agreed by SM2 and ML-KEM; the eavesdropper sees only noise.",
		"密文 aes：以 SM2 与 ML-KEM 协商密钥，窃听者看到的只是乱码。",
	}
	textSealedSM4 = text{
		"sealed, sm4: the same with SM2 and SM4; the eavesdropper sees only noise.",
		"密文 sm4：以 SM2 协商、SM4 加密，窃听者看到的只是乱码。",
	}
	textCallBack = text{
		"call back: the server calls the client over the same connection and gets an answer.",
		"回调：服务端沿同一连接反向调用客户端，并得到应答。",
	}

	textQueueOpen = text{
		"open: two nodes that reach only the broker call each other, and its owner reads the answer.",
		"明文：两个节点只能连到队列服务器，调用成功，而其主人能读到应答。",
	}
	textQueueSealed = text{
		"sealed, aes and sm4: the same call; the broker's owner sees only noise.",
		"密文 aes 与 sm4：同样的调用，队列服务器的主人看到的只是乱码。",
	}
	textQueueCallBack = text{
		"call back: the server calls the client through the broker and gets an answer.",
		"回调：服务端经队列反向调用客户端，并得到应答。",
	}
	textQueueReplay = text{
		"replay: the broker's owner sends a sealed call again, bit for bit; it does not run a second time.",
		"重放：队列服务器的主人把密文请求原样再发一次，不会被第二次执行。",
	}
	textQueueReplicas = text{
		"replicas: two servers with one key share a queue; one ends, and a repeatable call of its callers finds the other at once.",
		"副本：两个同密钥的服务端共用一个队列，其中一个退出后，其调用者的可重复调用立即找到另一个。",
	}

	textTamperThere = text{
		"tampering: one bit of a sealed call is changed on its way; the server does not run it.",
		"篡改请求：密文请求途中被改一个比特，服务端拒不执行。",
	}
	textTamperBack = text{
		"tampering: one bit of a sealed answer is changed on its way; the client does not believe it.",
		"篡改应答：密文应答途中被改一个比特，客户端拒不相信。",
	}
	textReplay = text{
		"replay: a recorded signed call is sent again, bit for bit; it does not run a second time.",
		"重放：把录下的签名请求原样再发一次，不会被第二次执行。",
	}
	textImpostorHTTP = text{
		"impostor: another node answers at the server's address over HTTP; it cannot prove the pinned ID.",
		"冒充：另一节点在 HTTP 地址上顶替服务端，无法证明被固定的节点 ID。",
	}
	textImpostorWebSocket = text{
		"impostor: the same over WebSocket; the client tells it nothing.",
		"冒充：在 WebSocket 上同样如此，客户端不会向它透露任何内容。",
	}
)
