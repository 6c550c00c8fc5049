/* The bounds of the protocol between clients and the coordinator. Both sides refuse what lies beyond. */
#ifndef RPC_LIMITS_H
#define RPC_LIMITS_H

#define RPC_PROTOCOL_VERSION 1U

#define RPC_FRAME_HEAD_BYTES 4U
#define RPC_HELLO_FRAME_BYTES (8U << 10)    /* until Hello is accepted */
#define RPC_REQUEST_FRAME_BYTES (16U << 20) /* client to server; a server allows less where its prompts are shorter */
#define RPC_REPLY_FRAME_BYTES (64U << 20)   /* server to client */
#define RPC_REQUEST_SLACK_BYTES (1U << 20)  /* what a Generate may hold beside its prompt's text */

#define RPC_MAX_TOKEN_BYTES 4096U /* access token */
#define RPC_MAX_CALLS 256U        /* open on one connection */
#define RPC_MAX_STOPS 16U
#define RPC_MAX_STOP_BYTES 1024U
#define RPC_MAX_SENTENCE_BYTES 512U

#define RPC_HANDSHAKE_TIMEOUT_MS 10000
#define RPC_OUTPUT_BYTES (8U << 20) /* a client that leaves more unread is cut off */

#endif
