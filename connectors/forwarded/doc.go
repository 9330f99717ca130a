// Package forwarded finds out who is at the other end of a request that came through
// proxies: the client's address, the scheme and host that it asked for, its country.
//
// What a header says can be written by anybody. So nothing is believed unless an
// operator says of whom, and then one header alone:
//
//	peer ── is it in Config.TrustedProxies? ── no ──▶ the peer is the client
//	          │ yes
//	          ▼
//	Config.Header, from the right: the first address that is no trusted proxy is the
//	client; if all are trusted, the leftmost
//
// # Promises
//
//   - Whatever a client writes into a header, it does not change what a trusted proxy
//     behind it has added. Elements are read from the right, and none to the left of
//     the client's: no quotation mark, comma or length there has an effect.
//   - One header is believed. X-Forwarded-For says nothing where Forwarded was chosen,
//     and the other way round. X-Real-IP and the like say nothing at all.
//   - Several lines of a header are one list, in their order (RFC 9110 §5.3). No
//     element spans two of them.
//   - Scheme and host come from the same family, and from the hop that named the client:
//     proto= and host= of its element; X-Forwarded-Proto and X-Forwarded-Host at the
//     same distance from the right as the client's address, or the leftmost of fewer.
//   - Where a trusted proxy says that the client is not known (unknown, _hidden), or
//     what it says cannot be read, the address is the zero netip.Addr. It is never the
//     address of another client. Scheme and host still are what that proxy says of them,
//     if that can be read.
//   - Resolve is a pure function. It allocates nothing for a header of the usual form.
//     An untrusted peer costs one comparison for each range.
//
// # Forwarded
//
// The grammar is that of RFC 7239 §4 and §6:
//
//	Forwarded         = 1#forwarded-element
//	forwarded-element = [ forwarded-pair ] *( ";" [ forwarded-pair ] )
//	forwarded-pair    = token "=" ( token / quoted-string )
//	node              = nodename [ ":" node-port ]
//	nodename          = IPv4address / "[" IPv6address "]" / "unknown" / obfnode
//	obfnode           = "_" 1*( ALPHA / DIGIT / "." / "_" / "-" )
//	node-port         = 1*5DIGIT / obfport, which has the form of obfnode
//
// Names of parameters have no case. One that is there twice in an element makes it
// malformed (§4). One thing more is accepted: blanks around a semicolon. An empty
// element of a list is none (RFC 9110 §5.6.1).
//
// # X-Forwarded-For
//
// No standard describes it. An entry is an address, also with a port (192.0.2.1:80,
// [2001:db8::1]:80) or in brackets, or the word unknown.
//
// In both headers an IPv4-mapped IPv6 address is the IPv4 address, and a zone is
// malformed: it means something on one machine alone.
//
// # PROXY protocol
//
// Listen reads the header of the PROXY protocol (versions 1 and 2, by
// pires/go-proxyproto) from connections of trusted proxies, and from no others. A
// trusted proxy that does not send it is refused: its clients would otherwise be taken
// for the proxy. The address that it gives is the peer for everything above. So a
// header is believed behind it if that address is a trusted proxy's, too. LOCAL is the
// proxy itself. UNKNOWN, and an address of UDP or of a Unix socket, is a client that is
// not known and never trusted. The library refuses PROXY with the family UNSPEC.
//
// # Country
//
// A trusted peer may name the country in Config.CountryHeader, as Cloudflare and
// CloudFront do. It counts if it is there once and is two capital letters. XX and ZZ
// mean that it is not known.
//
// # Metrics
//
// They exist where Config names trusted proxies.
//
//	partners_forwarded_requests_total{result}          requests by what was found: believed;
//	                                                   absent: a trusted proxy sent no header;
//	                                                   unknown: it does not know the client;
//	                                                   malformed: the header cannot be read;
//	                                                   ignored: an untrusted peer sent one;
//	                                                   direct: an untrusted peer sent none
//	partners_proxy_protocol_connections_total{result}  connections: believed; refused: from a
//	                                                   trusted proxy without a valid header;
//	                                                   direct: from an untrusted peer
//
// # Why this is our own code
//
// realclientip-go cuts Forwarded at commas inside quotation marks, and knows neither
// scheme nor host; those middlewares that know them (gorilla/handlers and others) take
// the leftmost address, which is the one that a client can choose.
package forwarded
