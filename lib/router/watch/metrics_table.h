/*
 * Every metric family of the router, once: the page is printed from these rows, docs/metrics.md is
 * printed from them (`pdctl serve --list-metrics`), and the tests take their list from there.
 *
 * A row ends with two texts: what the value is, and the sentence "moves when ...". Four lists, by
 * where the value lives:
 *   METRICS_COUNTERS    striped counters: id, first label, second label, name, help, moves
 *   METRICS_HISTOGRAMS  striped histograms: id, label, bounds, name, help, moves
 *   METRICS_WORKERS     one value per worker: id, type, extra labels, roles, name, help, moves
 *   METRICS_SINGLES     one value of the process: id, type, labels, name, help, moves
 * Names of vllm-router keep their name, labels and meaning.
 */
#ifndef PD_ROUTER_METRICS_TABLE_H
#define PD_ROUTER_METRICS_TABLE_H

#define METRICS_COUNTERS(X)                                                                        \
	X(RECEIVED, ROUTE, NONE, "pdctl_requests_received_total", "Requests accepted for routing", \
	  "a request has been read and admitted")                                                  \
	X(REQUESTS, ROUTE, NONE, "vllm_router_requests_total", "Requests answered with 2xx",       \
	  "a request with a 2xx status ends")                                                      \
	X(RESPONSES, ROUTE, CODE, "pdctl_responses_total",                                         \
	  "Answers by status class; 0xx: the client left before one",                              \
	  "a request ends, or is not admitted")                                                    \
	X(ERRORS, ROUTE, ERROR, "vllm_router_request_errors_total", "Requests that failed",        \
	  "a request ends with an error status or a cut stream, except for clients that left")     \
	X(RETRIES, ROUTE, NONE, "vllm_router_retries_total", "Attempts after the first",           \
	  "a failed attempt is followed by another one")                                           \
	X(RETRY_CAUSES, CAUSE, NONE, "pdctl_retries_by_cause_total",                               \
	  "Attempts after the first, by the cause of the failure before",                          \
	  "a failed attempt is followed by another one")                                           \
	X(RETRIES_EXHAUSTED, ROUTE, NONE, "vllm_router_retries_exhausted_total",                   \
	  "Requests that failed after their last attempt",                                         \
	  "a request that was tried more than once gets an error")                                 \
	X(BUDGET_EMPTY, ROUTE, NONE, "pdctl_retry_budget_exhausted_total",                         \
	  "Retries not made because the budget was spent",                                         \
	  "--retry-budget leaves nothing for another attempt")                                     \
	X(LEG_FAILURES, STAGE, CAUSE, "pdctl_leg_failures_total",                                  \
	  "Exchanges with a worker that failed, by cause",                                         \
	  "a worker cannot be reached, refuses, stalls or cuts its answer")                        \
	X(STALE, ROUTE, NONE, "pdctl_stale_connections_total",                                     \
	  "Requests sent again because a pooled connection was dead",                              \
	  "a worker closed an idle connection while a request was sent on it")                     \
	X(NO_WORKER, ROUTE, NONE, "pdctl_no_worker_total",                                         \
	  "Decisions that found no available worker", "a pool has no worker that may be picked")   \
	X(NO_MODEL, ROUTE, NONE, "pdctl_unknown_models_total",                                     \
	  "Requests for a model that no worker serves, answered with 404",                         \
	  "a request names a model that is in no worker's list, also not in a fresh one")          \
	X(DECISIONS, STAGE, REASON, "pdctl_decisions_total", "Decisions by reason",                \
	  "a worker is picked for an attempt")                                                     \
	X(SHADOW, STAGE, SHADOW, "pdctl_shadow_decisions_total",                                   \
	  "Decisions of --shadow-policy beside the first of a request: the same worker, another, " \
	  "or none",                                                                               \
	  "a worker is picked for a first attempt with --shadow-policy")                           \
	X(SHADOW_REGRET, STAGE, NONE, "pdctl_shadow_regret_requests_total",                        \
	  "Requests in flight that the picked workers had more than the shadow's, summed up over " \
	  "decisions",                                                                             \
	  "the worker of --shadow-policy has fewer requests in flight than the one picked")        \
	X(SHADOW_GAIN, STAGE, NONE, "pdctl_shadow_gain_requests_total",                            \
	  "Requests in flight that the picked workers had less than the shadow's, summed up over " \
	  "decisions",                                                                             \
	  "the worker of --shadow-policy has more requests in flight than the one picked")         \
	X(NO_KEY, ROUTE, NONE, "pdctl_keyless_requests_total", "Requests without a session key",   \
	  "neither a header nor the body names a session or user")                                 \
	X(FAILOVERS, ROUTE, NONE, "pdctl_failover_picks_total",                                    \
	  "Picks that were not the key's first choice",                                            \
	  "the key's first worker is unavailable, at its cap or was tried")                        \
	X(CLIENT_LEFT, ROUTE, NONE, "pdctl_client_left_total",                                     \
	  "Requests whose client left before the end", "a client closes its connection early")     \
	X(WRITE_STALLS, ROUTE, NONE, "pdctl_write_stalls_total",                                   \
	  "Answers aborted because the client did not read",                                       \
	  "a client reads nothing for --write-stall-timeout-secs")                                 \
	X(STREAM_ERRORS, ROUTE, NONE, "pdctl_stream_errors_total",                                 \
	  "Answers that a worker cut after the first byte",                                        \
	  "a worker dies, breaks its framing or stalls within an answer")                          \
	X(EVENTS, ROUTE, NONE, "pdctl_events_relayed_total", "Server-sent events relayed",         \
	  "a streamed answer ends")                                                                \
	X(BYTES, ROUTE, NONE, "pdctl_bytes_relayed_total", "Body bytes relayed to clients",        \
	  "an answer with a body ends")                                                            \
	X(BYTES_IN, ROUTE, NONE, "pdctl_bytes_received_total", "Body bytes received from clients", \
	  "a request with a body is accepted")                                                     \
	X(RENDERED, ROUTE, NONE, "pdctl_prompts_tokenized_total",                                  \
	  "Prompts that a worker tokenized, or that came as token ids, for a policy that goes by " \
	  "KV events",                                                                             \
	  "a request is decided by such a policy, and its tokens are known")                       \
	X(NOT_RENDERED, ROUTE, NONE, "pdctl_prompts_not_tokenized_total",                          \
	  "The same, without tokens: the policy goes by load",                                     \
	  "POST /tokenize of a worker fails or takes a second, or the prompt has another form")    \
	X(TRACES, TRACE, NONE, "pdctl_traceparent_total",                                          \
	  "W3C trace contexts: passed on, refused as malformed, or made here",                     \
	  "a request carries traceparent, or --generate-traceparent makes one")                    \
	X(FOLLOW, FOLLOW, NONE, "pdctl_remembered_ids_total",                                      \
	  "Ids that one worker knows: learnt, evicted; named by a request and found, gone with "   \
	  "their worker, or unknown",                                                              \
	  "an answer below /v1/responses and its like brings an id, or a request there names one") \
	X(PD_REQUESTS, ROUTE, NONE, "vllm_router_pd_requests_total", "P/D requests",               \
	  "a request enters the prefill/decode path")                                              \
	X(PD_ERRORS, PDERROR, NONE, "vllm_router_pd_errors_total",                                 \
	  "P/D attempts that failed between the legs",                                             \
	  "no pair can be picked, prefill returns no kv_transfer_params, or the lease expires")    \
	X(PD_BODY_OVER, LEGSTAGE, NONE, "vllm_router_pd_body_over_limit_total",                    \
	  "Prefill answers over 64 MiB", "a prefill worker's answer does not fit")                 \
	X(PD_FALLBACK, ROUTE, NONE, "pdctl_pd_fallback_total",                                     \
	  "P/D requests decoded without a prefill",                                                \
	  "no prefill worker, or no kv_transfer_params, with --pd-fallback decode-only")           \
	X(PD_ALONE, ALONE, NONE, "pdctl_pd_decode_alone_total",                                    \
	  "Requests that one prefill of one sequence cannot stand for, given to decode alone",     \
	  "a body has several prompts, prompt_logprobs, beam search, effects, or invalid limits")  \
	X(PD_REPREFILL, ROUTE, NONE, "pdctl_pd_reprefill_total",                                   \
	  "Prefills repeated because decode failed or the lease expired",                          \
	  "an attempt fails after its prefill")                                                    \
	X(PD_RELEASED, ROUTE, NONE, "pdctl_pd_released_total",                                     \
	  "Decodes sent to free blocks that nobody else will read",                                \
	  "a client leaves between prefill and decode, or decode refuses the request with a 4xx")  \
	X(PD_DUPLICATE, ROUTE, NONE, "pdctl_duplicate_fields_total",                               \
	  "Requests refused because an edited field occurs twice",                                 \
	  "a P/D body has max_tokens, stream or kv_transfer_params twice")                         \
	X(EMBEDDINGS, NONE, NONE, "vllm_router_embeddings_total",                                  \
	  "Embeddings requests answered with 2xx", "an embeddings request with a 2xx status ends") \
	X(EMBEDDINGS_ERRORS, HTTPERROR, NONE, "vllm_router_embeddings_errors_total",               \
	  "Embeddings requests that failed", "an embeddings request ends with an error status")

#define METRICS_HISTOGRAMS(X)                                                                      \
	X(DURATION, ROUTE, LONG, "vllm_router_request_duration_seconds",                           \
	  "Request to the last byte of the answer", "a request ends")                              \
	X(GENERATE, NONE, LONG, "vllm_router_generate_duration_seconds",                           \
	  "Plain pool, 2xx: request to the end of the answer, of a stream to its head",            \
	  "a request of a plain pool with a 2xx status ends")                                      \
	X(TTFT, STAGE, LONG, "pdctl_time_to_first_token_seconds",                                  \
	  "Streams: request to the first event sent to the client",                                \
	  "the first event of a stream goes out")                                                  \
	X(ITL, STAGE, FINE, "pdctl_inter_event_seconds", "Gap between events of one stream",       \
	  "an event that is not the first goes out")                                               \
	X(CONNECT, STAGE, FINE, "pdctl_upstream_connect_seconds",                                  \
	  "Time until a connection to a worker was made", "a new connection is made")              \
	X(QUEUE, NONE, FINE, "pdctl_queue_wait_seconds", "Time in the admission queue",            \
	  "a request is accepted")                                                                 \
	X(OVERHEAD, NONE, FINE, "pdctl_decision_seconds", "Request read to first dispatch",        \
	  "a request ends")                                                                        \
	X(LEG, STAGE, LONG, "pdctl_leg_first_byte_seconds",                                        \
	  "Dispatch to the head of the worker's answer", "a worker answers")                       \
	X(BACKOFF, ATTEMPT, LONG, "vllm_router_retry_backoff_duration_seconds",                    \
	  "Pause before a retry", "a failed attempt is followed by another one")                   \
	X(PREFILL, NONE, LONG, "pdctl_prefill_seconds", "Prefill leg, dispatch to answer",         \
	  "a prefill worker's answer is complete")                                                 \
	X(HANDOVER, NONE, FINE, "pdctl_handover_seconds", "Prefill answer to decode dispatch",     \
	  "a decode that was dispatched after a prefill answers or fails")                         \
	X(HANDOVER_FIRST, NONE, LONG, "pdctl_handover_first_byte_seconds",                         \
	  "Prefill answer to the head of decode's answer: the transfer of the blocks is in it",    \
	  "decode answers after a prefill")                                                        \
	X(PD_DURATION, ROUTE, LONG, "vllm_router_pd_request_duration_seconds",                     \
	  "P/D request to the head of decode's answer, or to its failure",                         \
	  "decode answers a P/D request, or the request fails before")                             \
	X(PD_PENDING, NONE, LONG, "vllm_router_pd_decode_pending_seconds",                         \
	  "Picks of a P/D attempt to the dispatch of decode",                                      \
	  "a decode that was dispatched answers or fails")                                         \
	X(EMBEDDINGS, NONE, LONG, "vllm_router_embeddings_duration_seconds",                       \
	  "Embeddings request to the last byte of the answer", "an embeddings request ends")

#define METRICS_WORKERS(X)                                                                         \
	X(HEALTH, GAUGE, NONE, ANY, "vllm_router_worker_health",                                   \
	  "1 when the worker may be picked",                                                       \
	  "a worker leaves the rotation (ejected, unhealthy, breaker, busy, drain) or comes back") \
	X(LOAD, GAUGE, NONE, ANY, "vllm_router_worker_load",                                       \
	  "What the policies compare: requests picked and not yet released",                       \
	  "a worker is picked, or its part of the request ends")                                   \
	X(RUNNING, GAUGE, NONE, ANY, "vllm_router_running_requests", "Requests in flight",         \
	  "a worker is picked, or its part of the request ends")                                   \
	X(PROCESSED, COUNTER, NONE, ANY, "vllm_router_processed_requests_total",                   \
	  "Requests sent to the worker", "a request begins to be sent to the worker")              \
	X(PICKS, COUNTER, POLICY, ANY, "vllm_router_policy_decisions_total",                       \
	  "Decisions for the worker", "a worker is picked for an attempt")                         \
	X(SHADOWS, COUNTER, SHADOW, ANY, "pdctl_shadow_picks_total",                               \
	  "Decisions of --shadow-policy for the worker, which are not followed",                   \
	  "the shadow policy decides beside the first attempt of a request")                       \
	X(FAILURES, COUNTER, NONE, ANY, "pdctl_worker_errors_total",                               \
	  "Requests that failed by the worker's fault",                                            \
	  "a worker cannot be reached, answers 5xx where another does not (503 never counts), "    \
	  "not at all, or with a truncated answer")                                                \
	X(REFUSALS, COUNTER, STATUS, ANY, "pdctl_worker_refusals_total",                           \
	  "Answers 503 and 429, which say that the worker is busy",                                \
	  "a worker answers a request with 503 or 429")                                            \
	X(TOKENS, COUNTER, TOKENS, ANY, "pdctl_tokens_total",                                      \
	  "Tokens that answers name in usage; prompt and cached ones are the prefill worker's",    \
	  "an answer with usage ends; a stream has one when the client asks for it")               \
	X(CB_STATE, GAUGE, NONE, ANY, "vllm_router_cb_state",                                      \
	  "Circuit breaker: 0 closed, 1 open, 2 half-open", "the breaker changes its state")       \
	X(CB_MOVES, COUNTER, FROM_TO, ANY, "vllm_router_cb_state_transitions_total",               \
	  "Circuit breaker transitions", "the breaker changes its state")                          \
	X(CB_OUTCOMES, COUNTER, OUTCOME, ANY, "vllm_router_cb_outcomes_total",                     \
	  "Outcomes seen by the circuit breaker",                                                  \
	  "an attempt on the worker ends, but for 503, 429 and 5xx that another worker answers "   \
	  "too")                                                                                   \
	X(SERVED, GAUGE, NONE, ANY, "pdctl_worker_models",                                         \
	  "Models and adapters that the worker lists at /v1/models; absent: its list is not "      \
	  "known",                                                                                 \
	  "a worker's list is read, every --models-interval-secs")                                 \
	X(CHECKS, COUNTER, RESULT, ANY, "pdctl_health_checks_total", "Health checks by result",    \
	  "a health check of the worker ends")                                                     \
	X(EJECTIONS, COUNTER, NONE, ANY, "pdctl_worker_ejections_total",                           \
	  "Times a failed connection took the worker out",                                         \
	  "a connection to an available worker cannot be made")                                    \
	X(CONNECTS, COUNTER, NONE, ANY, "pdctl_upstream_connects_total", "Connections made",       \
	  "a request finds no idle connection")                                                    \
	X(CONNECT_FAILURES, COUNTER, NONE, ANY, "pdctl_upstream_connect_failures_total",           \
	  "Connections that could not be made", "a worker refuses or does not accept in time")     \
	X(REUSED, COUNTER, NONE, ANY, "pdctl_upstream_reused_total",                               \
	  "Requests on a pooled connection", "a request finds an idle connection")                 \
	X(CLOSED, COUNTER, NONE, ANY, "pdctl_upstream_closed_total",                               \
	  "Connections closed, idle ones and used ones",                                           \
	  "an idle connection is too old, or a used one cannot be used again")                     \
	X(STALE, COUNTER, NONE, ANY, "pdctl_upstream_stale_total",                                 \
	  "Pooled connections that were dead",                                                     \
	  "a worker closed an idle connection while a request was sent on it")                     \
	X(IDLE, GAUGE, NONE, ANY, "pdctl_upstream_idle", "Pooled connections",                     \
	  "a connection becomes idle, is used again, or is closed for its age")                    \
	X(PD_PREFILLS, COUNTER, NONE, PREFILL, "vllm_router_pd_prefill_requests_total",            \
	  "P/D requests whose decode answered, by prefill worker",                                 \
	  "decode answers a request that this worker prefilled")                                   \
	X(PD_DECODES, COUNTER, NONE, DECODE, "vllm_router_pd_decode_requests_total",               \
	  "P/D requests whose decode answered, by decode worker",                                  \
	  "the worker answers a decode leg")                                                       \
	X(PD_PREFILL_ERRORS, COUNTER, NONE, PREFILL, "vllm_router_pd_prefill_errors_total",        \
	  "Prefill legs that failed, 4xx included",                                                \
	  "a prefill leg gets an error status or no whole answer")                                 \
	X(PD_DECODE_ERRORS, COUNTER, NONE, DECODE, "vllm_router_pd_decode_errors_total",           \
	  "Decode legs that failed, 4xx included",                                                 \
	  "a decode leg gets an error status or no whole answer")                                  \
	X(PD_STREAM_ERRORS, COUNTER, NONE, DECODE, "vllm_router_pd_stream_errors_total",           \
	  "Decode answers cut after their first byte", "a decode worker cuts an answer off")       \
	X(PD_OCCUPANCY, GAUGE, RANK, PREFILL, "vllm_router_pd_prefill_occupancy",                  \
	  "Prefills in flight", "a prefill worker is picked, or has answered")                     \
	X(PD_PENDING, GAUGE, RANK, DECODE, "vllm_router_pd_pending_decode_requests",               \
	  "Requests that hold the decode worker while their prefill runs",                         \
	  "a prefill begins or ends")                                                              \
	X(PD_ACTIVE, GAUGE, RANK, DECODE, "vllm_router_pd_active_decode_requests",                 \
	  "Decodes in flight", "decode is dispatched, or has ended")

#define METRICS_SINGLES(X)                                                                         \
	X(ACTIVE, GAUGE, "", "vllm_router_active_workers", "Workers that may be picked",           \
	  "a worker leaves the rotation or comes back")                                            \
	X(POOL, GAUGE, "stage, state", "pdctl_pool_workers",                                       \
	  "Workers of a pool by state; open and half_open are the circuit breaker's",              \
	  "a worker changes its state")                                                            \
	X(PANIC, GAUGE, "stage", "pdctl_pool_panic",                                               \
	  "1 while requests go to workers with an open breaker too",                               \
	  "fewer of a pool's reachable workers than --panic-threshold have a closed breaker")      \
	X(PANICS, COUNTER, "stage", "pdctl_pool_panics_total", "Times a pool began to panic",      \
	  "fewer of a pool's reachable workers than --panic-threshold have a closed breaker")      \
	X(DEGRADED, GAUGE, "", "pdctl_pd_degraded",                                                \
	  "1 while no prefill worker is available to prefill/decode",                              \
	  "the last prefill worker leaves the rotation, or one comes back")                        \
	X(UPDATES, COUNTER, "", "vllm_router_discovery_updates_total",                             \
	  "Changes of the set of workers after the start",                                         \
	  "workers are added or removed, by a reload, through the admin port or by discovery")     \
	X(ADDED, GAUGE, "", "vllm_router_discovery_workers_added",                                 \
	  "Workers that the last change added", "workers are added or removed")                    \
	X(REMOVED, GAUGE, "", "vllm_router_discovery_workers_removed",                             \
	  "Workers that the last change removed", "workers are added or removed")                  \
	X(SOURCE_WORKERS, GAUGE, "source", "pdctl_discovery_workers",                              \
	  "Workers in the last list of a place where they are discovered",                         \
	  "a pod, a service, an address or a registration comes or goes")                          \
	X(SOURCE_FAILURES, COUNTER, "source", "pdctl_discovery_failures_total",                    \
	  "Answers of the registry, the API server or DNS that could not be had or used",          \
	  "one does not answer, refuses, or sends what cannot be read")                            \
	X(SOURCE_HEARD, GAUGE, "source", "pdctl_discovery_last_success_timestamp_seconds",         \
	  "When the last good answer came, Unix time", "one answers")                              \
	X(KV_SOURCES, GAUGE, "", "pdctl_kv_event_sources", "Workers whose KV events are followed", \
	  "such a worker is found, or leaves")                                                     \
	X(KV_BLOCKS, GAUGE, "", "pdctl_kv_blocks", "Blocks that workers hold by their KV events",  \
	  "an engine stores, removes or clears blocks")                                            \
	X(KV_BATCHES, COUNTER, "", "pdctl_kv_event_batches_total", "Batches of KV events taken",   \
	  "an engine publishes, or replays, a batch")                                              \
	X(KV_UNREADABLE, COUNTER, "", "pdctl_kv_event_batches_unreadable_total",                   \
	  "Batches of KV events that could not be read; the worker's index is dropped",            \
	  "a batch is no MessagePack of vLLM's form")                                              \
	X(KV_GAPS, COUNTER, "", "pdctl_kv_event_gaps_total",                                       \
	  "Batches of KV events that followed a gap in the sequence",                              \
	  "an engine or ZeroMQ drops batches, or a connection is lost")                            \
	X(KV_REPLAYS, COUNTER, "", "pdctl_kv_event_replays_total",                                 \
	  "Replays of KV events asked for", "a worker is followed, or a gap is seen")              \
	X(KV_RESTARTS, COUNTER, "", "pdctl_kv_event_restarts_total",                               \
	  "KV events that began anew, or connections to them that came back",                      \
	  "an engine restarts")                                                                    \
	X(KV_FORGOTTEN, COUNTER, "", "pdctl_kv_event_losses_total",                                \
	  "Times that a worker's index was dropped because events are missing, or at its bound",   \
	  "a gap is not closed by a replay, or an engine holds over 1048576 blocks")               \
	X(RELOADS, COUNTER, "", "pdctl_reloads_total", "Successful reloads",                       \
	  "SIGHUP or POST /reload succeeds")                                                       \
	X(RELOAD_FAILURES, COUNTER, "", "pdctl_reload_failures_total",                             \
	  "Reloads that failed and changed nothing",                                               \
	  "SIGHUP or POST /reload finds a file that cannot be used")                               \
	X(ADMIN_REFUSED, COUNTER, "", "pdctl_admin_refused_total",                                 \
	  "Changes of the fleet that were refused",                                                \
	  "one comes to the data port, or from a web page")                                        \
	X(VERSION, GAUGE, "", "pdctl_fleet_version", "Version of the set of workers in use",       \
	  "a reload succeeds, a worker is added or removed")                                       \
	X(IN_WORK, GAUGE, "", "pdctl_requests_in_work",                                            \
	  "Requests in flight, as --max-concurrent-requests counts them",                          \
	  "a request is admitted, or ends")                                                        \
	X(WAITING, GAUGE, "", "pdctl_requests_waiting", "Requests in the admission queue",         \
	  "a request arrives while --max-concurrent-requests are in flight")                       \
	X(QUEUED, COUNTER, "", "pdctl_requests_queued_total",                                      \
	  "Requests that entered the admission queue",                                             \
	  "a request arrives while --max-concurrent-requests are in flight")                       \
	X(QUEUE_FULL, COUNTER, "", "pdctl_queue_full_total",                                       \
	  "Requests refused because the admission queue was full",                                 \
	  "a request arrives while --queue-size requests are queued")                              \
	X(QUEUE_TIMEOUTS, COUNTER, "", "pdctl_queue_timeouts_total",                               \
	  "Requests that timed out in the admission queue",                                        \
	  "a request is queued for --queue-timeout-secs")                                          \
	X(QUEUE_LEFT, COUNTER, "", "pdctl_queue_left_total",                                       \
	  "Requests whose client left the admission queue",                                        \
	  "a client disconnects while its request is queued")                                      \
	X(SATURATION, GAUGE, "", "pdctl_saturation_percent",                                       \
	  "Saturation of the workers by the detector of --epp-config, at the last look of flow "   \
	  "control: requests wait from its ceiling on",                                            \
	  "a request arrives, or waits, with featureGates: [flowControl]")                         \
	X(LOOPS, COUNTER, "", "pdctl_loops_total", "Requests that had passed this router before",  \
	  "a worker's URL leads back to this router")                                              \
	X(UNAUTHORIZED, COUNTER, "", "pdctl_unauthorized_total", "Requests refused with 401",      \
	  "a request has no key, or an invalid one")                                               \
	X(KEY_CHECKS, COUNTER, "", "pdctl_key_checks_total", "Keys sent to validation URLs",       \
	  "a key is neither in the file nor cached")                                               \
	X(KEY_FAILURES, COUNTER, "", "pdctl_key_check_failures_total",                             \
	  "Keys that could not be validated",                                                      \
	  "a validation URL does not answer and no other calls the key valid")                     \
	X(KEY_HITS, COUNTER, "", "pdctl_key_cache_hits_total", "Keys answered from the cache",     \
	  "a key comes again before its cached verdict expires")                                   \
	X(KEY_WAITING, GAUGE, "", "pdctl_key_checks_waiting",                                      \
	  "Requests that wait for the validation of their key", "a validation begins or ends")     \
	X(SPANS_SENT, COUNTER, "", "pdctl_spans_sent_total", "Spans that the collector took",      \
	  "it answers 2xx to --otlp-traces-endpoint's posts")                                      \
	X(SPANS_DROPPED, COUNTER, "", "pdctl_spans_dropped_total",                                 \
	  "Spans dropped because the queue was full",                                              \
	  "requests end faster than the collector takes their spans")                              \
	X(SPANS_FAILED, COUNTER, "", "pdctl_spans_failed_total",                                   \
	  "Spans that the collector did not take",                                                 \
	  "it cannot be reached, refuses, or fails three times")                                   \
	X(EMBEDDINGS_QUEUE, GAUGE, "", "vllm_router_embeddings_queue_size",                        \
	  "Embeddings requests in the admission queue", "an embeddings request is queued")         \
	X(BUDGET, GAUGE, "", "pdctl_retry_budget", "Retries that may be spent now",                \
	  "a retry is made, or earned by requests")                                                \
	X(CONNECTIONS, GAUGE, "", "pdctl_connections", "Client connections",                       \
	  "a client connects or leaves")                                                           \
	X(PEAK, GAUGE, "", "pdctl_connections_peak", "Most client connections at once",            \
	  "more clients are connected than before")                                                \
	X(THREADS, GAUGE, "", "pdctl_event_loops", "Event loops; 0 with --io threads", "never")    \
	X(FIBERS, GAUGE, "", "pdctl_fibers",                                                       \
	  "Fibers, or threads with --io threads, those that wait for a request included",          \
	  "more requests are in flight than before")                                               \
	X(FIBERS_IDLE, GAUGE, "", "pdctl_fibers_idle",                                             \
	  "Fibers or threads that wait for a request", "requests begin and end")                   \
	X(ACCEPTED, COUNTER, "", "pdctl_connections_accepted_total", "Connections accepted",       \
	  "a client connects")                                                                     \
	X(REFUSED, COUNTER, "", "pdctl_connections_refused_total",                                 \
	  "Connections refused at the limit",                                                      \
	  "--max-connections clients are connected, or --io threads has no thread")                \
	X(REFUSED_ADDRESS, COUNTER, "", "pdctl_connections_refused_per_ip_total",                  \
	  "Connections refused because their address is at its limit",                             \
	  "--max-connections-per-ip connections of one address are open")                          \
	X(ACCEPT_ERRORS, COUNTER, "", "pdctl_accept_errors_total",                                 \
	  "Times accept ran out of descriptors or memory", "the limit of open files is reached")   \
	X(FIBER_FAILURES, COUNTER, "", "pdctl_fiber_failures_total",                               \
	  "Fibers (the request waited) or threads (503) that could not be created",                \
	  "the system is out of memory or threads")                                                \
	X(BAD_REQUESTS, COUNTER, "", "pdctl_bad_requests_total",                                   \
	  "Requests refused by the parser or a limit",                                             \
	  "a head is malformed or too slow, or a body is over --max-payload-size")                 \
	X(READ_TIMEOUTS, COUNTER, "", "pdctl_read_timeouts_total",                                 \
	  "Requests that arrived too slowly", "a head or body misses its time limit")              \
	X(TLS_HANDSHAKES, COUNTER, "", "pdctl_tls_handshakes_total",                               \
	  "TLS handshakes with clients that succeeded", "a client connects over HTTPS")            \
	X(TLS_RESUMED, COUNTER, "", "pdctl_tls_resumed_total", "Those that resumed a session",     \
	  "a client comes back with its ticket")                                                   \
	X(TLS_FAILURES, COUNTER, "", "pdctl_tls_handshake_failures_total",                         \
	  "TLS handshakes with clients that failed",                                               \
	  "a certificate is refused by either side, or the client speaks plain HTTP")              \
	X(TLS_EXPIRY, GAUGE, "", "pdctl_tls_certificate_expiry_timestamp_seconds",                 \
	  "When the first certificate of --tls-cert expires, Unix time; 0: no TLS",                \
	  "certificates are read again")                                                           \
	X(DRAINING, GAUGE, "", "pdctl_draining", "1 while the router drains",                      \
	  "SIGTERM or SIGINT arrives")                                                             \
	X(LOG_LOST, COUNTER, "log", "pdctl_log_lines_dropped_total",                               \
	  "Log lines dropped because the log could not be written fast enough",                    \
	  "standard error or the file stalls until the log's buffer is full")                      \
	X(CAPTURE_RECORDS, COUNTER, "kind", "pdctl_capture_records_total",                         \
	  "Records in the file of --capture", "a request is decided or has ended, 100 ms later")   \
	X(CAPTURE_DROPPED, COUNTER, "kind, loss", "pdctl_capture_dropped_total",                   \
	  "Records that are missing in the file of --capture",                                     \
	  "--capture-queue records are queued, or the file cannot be written")                     \
	X(CAPTURE_ERRORS, COUNTER, "", "pdctl_capture_write_errors_total",                         \
	  "Transactions of --capture that failed", "the disk is full")                             \
	X(CAPTURE_FAILING, GAUGE, "", "pdctl_capture_failing",                                     \
	  "1 while the file of --capture cannot be written",                                       \
	  "the disk is full, or has room again")                                                   \
	X(CAPTURE_QUEUE, GAUGE, "", "pdctl_capture_queue_bytes",                                   \
	  "Bytes queued for the file of --capture", "a request is decided or has ended")           \
	X(BUILD, GAUGE, "version", "pdctl_build_info", "1; the label is the version",              \
	  "another version is started")                                                            \
	X(START, GAUGE, "", "process_start_time_seconds", "When the process started, Unix time",   \
	  "the router is started again")                                                           \
	X(CPU, COUNTER, "", "process_cpu_seconds_total", "CPU time of the process",                \
	  "the process works")                                                                     \
	X(MEMORY, GAUGE, "", "process_resident_memory_bytes", "Resident memory of the process",    \
	  "memory is taken or given back")                                                         \
	X(KEY_NAMES, COUNTER, "api_key_name", "pdctl_api_key_requests_total",                      \
	  "Requests with a client key that has a name",                                            \
	  "a request comes with a key of --client-api-keys with name=NAME")                        \
	X(OPEN_FDS, GAUGE, "", "process_open_fds", "Open files, connections among them",           \
	  "a connection is made or closed")                                                        \
	X(MAX_FDS, GAUGE, "", "process_max_fds", "Limit of open files",                            \
	  "the router is started with another limit")

#endif
