/* The table of settings. X(id, name, kind, default, unit, commands, help)
 * kind: STRING, INT, NUMBER, SWITCH, BYTES, LIST. The variable of `--max-context` is COTERIE_MAX_CONTEXT. A help page
 * fits 24 lines of 80 columns (a test says so): what few need is COT_RARE, and stands under --help-all. */
#ifndef COT_SETTINGS_TABLE_H
#define COT_SETTINGS_TABLE_H

#define COT_CMD_SERVE (1U << 0)
#define COT_CMD_SCORE (1U << 1)
#define COT_CMD_GENERATE (1U << 2)
#define COT_CMD_STATUS (1U << 3)
#define COT_CMD_BENCH (1U << 4)
#define COT_CMD_TOKENIZE (1U << 5)
#define COT_CMD_TRACE (1U << 6)
#define COT_CMD_DRAIN (1U << 7)
#define COT_CMD_PLAN (1U << 8)          /* coterie-plan solve */
#define COT_CMD_PLAN_EVALUATE (1U << 9) /* coterie-plan evaluate */
#define COT_CMD_PLAN_VERIFY (1U << 10)  /* coterie-plan verify */
#define COT_CMD_CONVERT (1U << 11)
#define COT_CMD_CALIBRATE (1U << 12)
#define COT_RARE (1U << 31) /* beside the commands */

#define COT_CMD_ENGINE (COT_CMD_SERVE | COT_CMD_SCORE)
#define COT_CMD_RANKS (COT_CMD_ENGINE | COT_CMD_CALIBRATE) /* what runs under mpirun */
#define COT_CMD_PLANS (COT_CMD_PLAN | COT_CMD_PLAN_EVALUATE | COT_CMD_PLAN_VERIFY)
#define COT_CMD_LISTS (COT_CMD_PLAN_EVALUATE | COT_CMD_PLAN_VERIFY) /* where a LIST takes all words up to a flag */
#define COT_CMD_CLIENT (COT_CMD_GENERATE | COT_CMD_STATUS | COT_CMD_BENCH | COT_CMD_DRAIN)

/* clang-format off */
#define COT_SETTINGS_MAP(X) \
    X(LOG_LEVEL, "log-level", STRING, "info", "", ~0U, "error, warn, info or debug") \
    X(DTYPE, "dtype", STRING, "auto", "", COT_CMD_RANKS, "activations: auto, bfloat16 or float32") \
    X(LOAD_FORMAT, "load-format", STRING, "auto", "", COT_CMD_RANKS, "auto (the files) or dummy (made-up weights)") \
    X(SEED, "seed", INT, "", "", COT_CMD_ENGINE | COT_CMD_GENERATE | COT_CMD_BENCH | COT_CMD_PLAN | COT_CMD_PLAN_EVALUATE | COT_CMD_TRACE, "of dummy weights, search, split (0); sampling (random)") \
    X(ISA, "isa", STRING, "auto", "", COT_CMD_RANKS | COT_RARE, "auto, scalar, avx2, avx512 or avx512_bf16") \
    X(BACKEND, "backend", STRING, "cpu", "", COT_CMD_RANKS | COT_RARE, "cpu, or ref (slow, the tests' oracle)") \
    X(THREADS, "threads", INT, "0", "", COT_CMD_RANKS | COT_CMD_PLAN | COT_CMD_PLAN_EVALUATE, "of a worker or a search; 0: its share of the cores") \
    X(PLAN, "plan", STRING, "", "file", COT_CMD_ENGINE, "expert placement, or auto; default contiguous") \
    X(TRACE, "trace", LIST, "", "file", COT_CMD_ENGINE | COT_CMD_LISTS, "routing: --plan auto plans for it, others judge by it") \
    X(FITTED, "fitted", LIST, "", "file", COT_CMD_PLAN_EVALUATE, "the traces that the plan was made from") \
    X(CLUSTER, "cluster", STRING, "", "file", COT_CMD_ENGINE | COT_CMD_PLANS, "the machines; --plan auto: default this job's") \
    X(PLAN_TIMEOUT, "plan-timeout", INT, "60000", "ms", COT_CMD_ENGINE | COT_RARE, "--plan auto: planner's end, search a third") \
    X(PLAN_MEMORY, "plan-memory", BYTES, "2GiB", "bytes", COT_CMD_ENGINE | COT_RARE, "--plan auto: its address space; 0: no limit") \
    X(RECORD, "record", STRING, "", "file", COT_CMD_ENGINE, "write the routing trace (*.trace.safetensors) here") \
    X(RECORD_LIMIT, "record-limit", BYTES, "4GiB", "bytes", COT_CMD_ENGINE | COT_RARE, "most trace bytes; later requests stay out") \
    X(KV_MEMORY, "kv-memory", BYTES, "256MiB", "bytes", COT_CMD_ENGINE, "KV cache of each worker") \
    X(MAX_CONTEXT, "max-context", INT, "0", "tokens", COT_CMD_ENGINE, "prompt + output; 0: model's, at most 8192") \
    X(MAX_STEP_TOKENS, "max-step-tokens", INT, "256", "tokens", COT_CMD_ENGINE, "most rows of one step on a worker") \
    X(MAX_SEQUENCES, "max-sequences", INT, "64", "", COT_CMD_ENGINE, "most running requests on a worker") \
    X(STEP_TIMEOUT, "step-timeout", INT, "60000", "ms", COT_CMD_RANKS | COT_RARE, "deadline of a step, exchange or measurement") \
    X(START_TIMEOUT, "start-timeout", INT, "600000", "ms", COT_CMD_RANKS | COT_RARE, "deadline of loading the weights") \
    X(LISTEN, "listen", STRING, "", "address", COT_CMD_SERVE, "unix:PATH or HOST:PORT") \
    X(CONNECT, "connect", STRING, "", "address", COT_CMD_CLIENT, "where the server listens (same default as its own)") \
    X(TOKEN_FILE, "token-file", STRING, "", "file", COT_CMD_SERVE | COT_CMD_CLIENT, "the access token (or the variable COTERIE_TOKEN)") \
    X(TOKEN, "token", STRING, "", "", 0, "only as the variable COTERIE_TOKEN") \
    X(PID_FILE, "pid-file", STRING, "", "file", COT_CMD_SERVE | COT_RARE, "write rank 0's pid here: SIGTERM to it drains") \
    X(TLS_CERT, "tls-cert", STRING, "", "file", COT_CMD_SERVE, "certificate chain (PEM): turns TLS on") \
    X(TLS_KEY, "tls-key", STRING, "", "file", COT_CMD_SERVE, "its private key (PEM)") \
    X(TLS_CA, "tls-ca", STRING, "", "file", COT_CMD_CLIENT, "talk TLS, trusting these certificates (PEM)") \
    X(MAX_CONNECTIONS, "max-connections", INT, "256", "", COT_CMD_SERVE | COT_RARE, "beyond them a client is told busy") \
    X(MAX_QUEUE, "max-queue", INT, "512", "", COT_CMD_SERVE | COT_RARE, "most waiting requests; beyond them: busy") \
    X(MAX_PROMPT, "max-prompt", BYTES, "4MiB", "bytes", COT_CMD_SERVE | COT_RARE, "longest prompt text") \
    X(DRAIN_TIMEOUT, "drain-timeout", INT, "60000", "ms", COT_CMD_SERVE | COT_RARE, "how long requests may run on once it drains") \
    X(IN, "in", STRING, "", "file", COT_CMD_SCORE | COT_CMD_TOKENIZE | COT_CMD_BENCH, "input lines (JSONL)") \
    X(OUT, "out", STRING, "", "file", COT_CMD_SCORE | COT_CMD_TOKENIZE | COT_CMD_PLAN | COT_CMD_TRACE | COT_CMD_CALIBRATE, "output lines (JSONL), plan, trace or cluster") \
    X(SLOTS, "slots", INT, "0", "", COT_CMD_CALIBRATE, "a worker's, in each MoE layer; 0: as contiguous") \
    X(MEMORY, "memory", BYTES, "", "bytes", COT_CMD_CALIBRATE, "of a worker, for experts; default: its node's share") \
    X(LOGITS, "logits", STRING, "", "file", COT_CMD_SCORE, "write the logits of every line (safetensors)") \
    X(SPECIAL, "special", SWITCH, "false", "", COT_CMD_TOKENIZE, "add the post-processor's special tokens") \
    X(MAX_TOKENS, "max-tokens", INT, "256", "tokens", COT_CMD_GENERATE | COT_CMD_BENCH, "most tokens to generate") \
    X(TEMPERATURE, "temperature", NUMBER, "", "", COT_CMD_GENERATE | COT_CMD_BENCH, "0: greedy; default: the model's") \
    X(TOP_K, "top-k", INT, "", "", COT_CMD_GENERATE | COT_CMD_TRACE, "sample among the k likeliest; experts of a token") \
    X(TOP_P, "top-p", NUMBER, "", "", COT_CMD_GENERATE, "… among those that hold this probability") \
    X(MIN_P, "min-p", NUMBER, "", "", COT_CMD_GENERATE, "… among those this likely, relative to the first") \
    X(REPETITION_PENALTY, "repetition-penalty", NUMBER, "", "", COT_CMD_GENERATE, "above 1: tokens seen before become less likely") \
    X(STOP, "stop", STRING, "", "text", COT_CMD_GENERATE, "end before this text") \
    X(LOGPROBS, "logprobs", INT, "0", "", COT_CMD_GENERATE, "print that many likeliest tokens with --json") \
    X(IGNORE_EOS, "ignore-eos", SWITCH, "false", "", COT_CMD_GENERATE | COT_CMD_BENCH, "go on past the end-of-text token") \
    X(JSON, "json", SWITCH, "false", "", COT_CMD_CLIENT | COT_CMD_TRACE | COT_CMD_PLANS, "for programs: JSON on standard output") \
    X(TIMEOUT, "timeout", INT, "600000", "ms", COT_CMD_CLIENT, "deadline of the whole call") \
    X(REQUESTS, "requests", INT, "64", "", COT_CMD_BENCH, "requests to send") \
    X(CONCURRENCY, "concurrency", INT, "8", "", COT_CMD_BENCH, "requests in flight") \
    X(PROMPT_TOKENS, "prompt-tokens", INT, "128", "tokens", COT_CMD_BENCH, "length of made-up prompts (without --in)") \
    X(MODEL, "model", STRING, "", "path", COT_CMD_PLANS | COT_CMD_TRACE | COT_CMD_CONVERT, "directory or config.json: sizes, and what must agree") \
    X(OBJECTIVE, "objective", STRING, "step_time", "name", COT_CMD_PLANS, "what is to be small: step_time, crossings, balance or weighted") \
    X(LAMBDA, "lambda", NUMBER, "1", "", COT_CMD_PLANS, "weight of balance beside crossings in the objective weighted") \
    X(EXCHANGE, "exchange", STRING, "home", "name", COT_CMD_PLANS, "exchange plan that the engine runs: home, shuffle or coherent") \
    X(DECODE, "decode", SWITCH, "false", "", COT_CMD_PLANS, "load is activated experts in steps of --step-tokens, not rows") \
    X(STEP_TOKENS, "step-tokens", INT, "256", "tokens", COT_CMD_PLANS, "tokens of one engine step over all ranks: how often latencies are paid") \
    X(TIME_LIMIT, "time-limit", NUMBER, "20", "s", COT_CMD_PLAN | COT_CMD_PLAN_EVALUATE, "seconds from the process's start to the plan; decimals allowed") \
    X(WORK, "work", INT, "0", "rounds", COT_CMD_PLAN | COT_CMD_PLAN_EVALUATE, "search this many rounds instead: the same plan for any number of threads") \
    X(SOLVER, "solver", STRING, "portfolio", "name", COT_CMD_PLAN, "one of those listed below") \
    X(FROM, "from", STRING, "", "file", COT_CMD_PLAN, "begin with this plan") \
    X(CERTIFICATE, "certificate", STRING, "", "file", COT_CMD_PLAN | COT_CMD_PLAN_VERIFY, "the bound's proof; default: the plan's name with .cert.safetensors") \
    X(REPORT, "report", STRING, "", "file", COT_CMD_PLAN | COT_CMD_PLAN_EVALUATE, "write it all as one HTML page too") \
    X(MAX_MOVES, "max-moves", INT, "0", "", COT_CMD_PLAN | COT_CMD_PLAN_EVALUATE, "with --from: move at most this many experts to ranks that do not hold them; 0: any number") \
    X(FORMAT, "format", STRING, "", "name", COT_CMD_TRACE | COT_CMD_CONVERT, "of the other program's file; default: by its name") \
    X(EXPERTS, "experts", INT, "0", "", COT_CMD_TRACE | COT_CMD_CONVERT, "of an MoE layer; 0: as the file says") \
    X(LAYERS, "layers", STRING, "", "list", COT_CMD_TRACE | COT_CMD_CONVERT, "their numbers in the model, like 3-60 or 1,3,5") \
    X(RANKS, "ranks", INT, "0", "", COT_CMD_CONVERT, "workers, where the file does not say") \
    X(TOKENS, "tokens", INT, "0", "tokens", COT_CMD_TRACE, "what the import must add up to, exactly") \
    X(WHERE, "where", STRING, "", "list", COT_CMD_TRACE, "CSV lines to take, like model=…,domain=c4") \
    X(REQUEST_TOKENS, "request-tokens", INT, "0", "tokens", COT_CMD_TRACE, "rows of a request in an ExFlow array") \
    X(HELD_OUT, "held-out", NUMBER, "0.2", "", COT_CMD_TRACE, "share of the requests that split puts aside")
/* clang-format on */

#endif
