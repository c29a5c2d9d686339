/*
 * The tables of a capture file, shared by the router that writes it and the commands that replay
 * it. docs/capture.md explains every column; a change of the tables is a new CAPTURE_VERSION.
 */
#ifndef PD_WORKLOAD_CAPTURE_SCHEMA_H
#define PD_WORKLOAD_CAPTURE_SCHEMA_H

#define CAPTURE_APPLICATION_ID 0x70644361 /* "pdCa" in the header of the file */
#define CAPTURE_VERSION	       2
#define CAPTURE_VERSION_MIN    1 /* that is read; it has no order of events */

/* Ids are unique in a file: number of the run times this, plus the request's number in its run. Two
 * routers that write the same file (a restart) never meet. */
#define CAPTURE_RUN_IDS INT64_C(10000000000)

/* A block of a prompt is this many bytes of its JSON text per token, as in simulate. */
#define CAPTURE_CHARS_PER_TOKEN 4u

#define CAPTURE_CANDIDATES 4

#define CAPTURE_SCHEMA                                                                             \
	"CREATE TABLE run (id INTEGER PRIMARY KEY, version TEXT NOT NULL,"                         \
	" started_wall_ns INTEGER NOT NULL, ended_ns INTEGER, mode TEXT NOT NULL,"                 \
	" ring_hash TEXT NOT NULL, virtual_nodes INTEGER NOT NULL, seed INTEGER NOT NULL,"         \
	" keys TEXT NOT NULL, block_tokens INTEGER NOT NULL, prompts INTEGER NOT NULL) STRICT;"    \
	"CREATE TABLE fleet (run INTEGER NOT NULL REFERENCES run(id), version INTEGER NOT NULL,"   \
	" at_ns INTEGER NOT NULL, policy TEXT NOT NULL, prefill_policy TEXT NOT NULL,"             \
	" decode_policy TEXT NOT NULL, PRIMARY KEY (run, version)) STRICT, WITHOUT ROWID;"         \
	"CREATE TABLE worker (run INTEGER NOT NULL, fleet INTEGER NOT NULL, role TEXT NOT NULL,"   \
	" position INTEGER NOT NULL, name TEXT NOT NULL, url TEXT NOT NULL,"                       \
	" weight INTEGER NOT NULL, cap INTEGER NOT NULL,"                                          \
	" PRIMARY KEY (run, fleet, role, position),"                                               \
	" FOREIGN KEY (run, fleet) REFERENCES fleet(run, version)) STRICT, WITHOUT ROWID;"         \
	"CREATE TABLE availability (run INTEGER NOT NULL REFERENCES run(id),"                      \
	" at_ns INTEGER NOT NULL, fleet INTEGER NOT NULL, role TEXT NOT NULL,"                     \
	" position INTEGER NOT NULL, available INTEGER NOT NULL) STRICT;"                          \
	"CREATE TABLE request (id INTEGER PRIMARY KEY,"                                            \
	" run INTEGER NOT NULL REFERENCES run(id), arrived_ns INTEGER NOT NULL,"                   \
	" wall_ns INTEGER NOT NULL, decided_ns INTEGER, request_id TEXT, route TEXT NOT NULL,"     \
	" method TEXT NOT NULL, model TEXT, key TEXT, key_form TEXT, key_level TEXT,"              \
	" key_source TEXT, body_bytes INTEGER NOT NULL, prompt_bytes INTEGER,"                     \
	" max_tokens INTEGER, streaming INTEGER NOT NULL, status INTEGER NOT NULL,"                \
	" outcome TEXT NOT NULL, error TEXT, attempts INTEGER NOT NULL,"                           \
	" decisions INTEGER NOT NULL, queue_us INTEGER, read_us INTEGER, dispatch_us INTEGER,"     \
	" prefill_us INTEGER, first_us INTEGER, last_us INTEGER, total_us INTEGER NOT NULL,"       \
	" events INTEGER NOT NULL, bytes INTEGER NOT NULL, prompt_tokens INTEGER,"                 \
	" completion_tokens INTEGER, cached_tokens INTEGER, blocks BLOB, body BLOB,"               \
	" route_tokens INTEGER, route_output INTEGER, route_blocks BLOB) STRICT;"                  \
	"CREATE TABLE decision (id INTEGER PRIMARY KEY,"                                           \
	" run INTEGER NOT NULL REFERENCES run(id), request INTEGER NOT NULL,"                      \
	" at_ns INTEGER NOT NULL, attempt INTEGER NOT NULL, role TEXT NOT NULL,"                   \
	" fleet INTEGER NOT NULL, worker INTEGER NOT NULL, home INTEGER NOT NULL,"                 \
	" reason TEXT NOT NULL, trial INTEGER NOT NULL, ties INTEGER NOT NULL,"                    \
	" score REAL NOT NULL, margin REAL NOT NULL, c1 INTEGER, s1 REAL, c2 INTEGER, s2 REAL,"    \
	" c3 INTEGER, s3 REAL, c4 INTEGER, s4 REAL, draw BLOB, began INTEGER NOT NULL,"            \
	" seq INTEGER NOT NULL, turn INTEGER NOT NULL, turns INTEGER NOT NULL,"                    \
	" usable BLOB, tried BLOB, in_flight BLOB) STRICT;"                                        \
	"CREATE TABLE release (run INTEGER NOT NULL REFERENCES run(id),"                           \
	" request INTEGER NOT NULL, at_ns INTEGER NOT NULL, role TEXT NOT NULL,"                   \
	" fleet INTEGER NOT NULL, worker INTEGER NOT NULL, what TEXT NOT NULL,"                    \
	" began INTEGER NOT NULL, seq INTEGER NOT NULL) STRICT;"                                   \
	"CREATE TABLE dropped (run INTEGER NOT NULL REFERENCES run(id), at_ns INTEGER NOT NULL,"   \
	" reason TEXT NOT NULL, requests INTEGER NOT NULL, decisions INTEGER NOT NULL,"            \
	" releases INTEGER NOT NULL) STRICT;"                                                      \
	"CREATE VIEW decision_named AS SELECT d.id, d.run, d.request, d.at_ns, d.attempt, d.role," \
	" CASE d.role WHEN 'prefill' THEN f.prefill_policy WHEN 'decode' THEN f.decode_policy"     \
	" ELSE f.policy END AS policy, w.name AS worker, w.url, h.name AS home, d.reason, d.ties," \
	" d.score, d.margin FROM decision d"                                                       \
	" JOIN fleet f ON f.run = d.run AND f.version = d.fleet"                                   \
	" JOIN worker w ON w.run = d.run AND w.fleet = d.fleet AND w.role = d.role"                \
	" AND w.position = d.worker"                                                               \
	" JOIN worker h ON h.run = d.run AND h.fleet = d.fleet AND h.role = d.role"                \
	" AND h.position = d.home;"                                                                \
	"CREATE VIEW candidate AS WITH c(decision, run, fleet, role, rank, position, score) AS ("  \
	"SELECT id, run, fleet, role, 1, c1, s1 FROM decision WHERE c1 IS NOT NULL UNION ALL "     \
	"SELECT id, run, fleet, role, 2, c2, s2 FROM decision WHERE c2 IS NOT NULL UNION ALL "     \
	"SELECT id, run, fleet, role, 3, c3, s3 FROM decision WHERE c3 IS NOT NULL UNION ALL "     \
	"SELECT id, run, fleet, role, 4, c4, s4 FROM decision WHERE c4 IS NOT NULL) "              \
	"SELECT c.decision, c.rank, w.name AS worker, c.score FROM c"                              \
	" JOIN worker w ON w.run = c.run AND w.fleet = c.fleet AND w.role = c.role"                \
	" AND w.position = c.position;"                                                            \
	"CREATE VIEW summary AS SELECT r.id AS run,"                                               \
	" (SELECT count(*) FROM request q WHERE q.run = r.id) AS requests,"                        \
	" (SELECT count(*) FROM decision d WHERE d.run = r.id) AS decisions,"                      \
	" (SELECT coalesce(sum(x.requests), 0) FROM dropped x WHERE x.run = r.id)"                 \
	" AS dropped_requests,"                                                                    \
	" (SELECT coalesce(sum(x.decisions), 0) FROM dropped x WHERE x.run = r.id)"                \
	" AS dropped_decisions,"                                                                   \
	" (SELECT coalesce(sum(x.releases), 0) FROM dropped x WHERE x.run = r.id)"                 \
	" AS dropped_releases, r.ended_ns IS NOT NULL AS ended FROM run r;"

#endif
