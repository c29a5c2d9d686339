/*
 * The program's log: one line per event, text or JSON, written to a descriptor in batches.
 *
 * log_line() formats into a shared bounded buffer; a writer thread empties it at least every 20 ms,
 * so a request costs no system call for its lines. When the buffer is full (a stalled reader of
 * standard error), lines are dropped and counted, and the count itself is logged: the data plane
 * never waits for its log. Thread-safe. Control bytes and quotes are escaped, so one event is
 * always exactly one line.
 */
#ifndef PD_BASE_LOG_H
#define PD_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/base/span.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_OFF };

struct log;

/* The log owns its thread, not the descriptor. NULL when out of memory or threads. */
struct log *log_new(int fd, enum log_level level, bool json);
/* A log that only log_put writes to: a file that is created or appended to, or standard output for
 * "-". The message names the file and the reason. */
int log_open(struct log **out, const char *path, struct pd_msg *msg) PD_MUST;
/*
 * After the file was renamed away: opens its path again and goes on there. The caller's next
 * line reaches the new file, the ones before it one of the two. When it cannot be opened everything
 * stays as it is. Nothing to do for standard output. From any thread.
 */
int log_reopen(struct log *l, struct pd_msg *msg) PD_MUST;
/* Writes what is left and stops the thread. Accepts NULL. */
void log_free(struct log *l);
/* The same, but the log stays, for threads that do not end before the process: what they log after
 * this is lost. The last call on a log. Accepts NULL. */
void log_stop(struct log *l);

/* debug, info, warn or warning, error or critical, off. PD_EINVAL otherwise. */
int log_level_parse(const char *name, enum log_level *out) PD_MUST;

/* True when a line of this level would be written: lets a caller skip the formatting. NULL log:
 * false. */
bool log_wants(const struct log *l, enum log_level level);

/* Are its lines JSON objects? NULL log: no. */
bool log_is_json(const struct log *l);

/* One event; a text above 4 KiB is cut and ends with "...". JSON form:
 * {"ts":"...","level":"info","msg":"..."}; text form: "2026-... INFO  ...". NULL log: nothing. */
void log_line(struct log *l, enum log_level level, const char *fmt, ...) PD_PRINTF(3, 4);

/* A field of an event. Make one with the macros. */
struct log_field {
	const char *name;
	enum { LOG_IS_TEXT, LOG_IS_NUMBER, LOG_IS_REAL } kind;
	struct span text;
	int64_t number;
	double real;
};

#define LOG_TEXT(key, string) ((struct log_field){.name = (key), .text = span_of(string)})
#define LOG_SPAN(key, span)   ((struct log_field){.name = (key), .text = (span)})
#define LOG_NUMBER(key, n)                                                                         \
	((struct log_field){.name = (key), .kind = LOG_IS_NUMBER, .number = (int64_t)(n)})
#define LOG_REAL(key, x) ((struct log_field){.name = (key), .kind = LOG_IS_REAL, .real = (x)})
/* The fields of a log_event, at least one. */
#define LOG_FIELDS(...)                                                                            \
	(const struct log_field[]){__VA_ARGS__},                                                   \
		sizeof((const struct log_field[]){__VA_ARGS__}) / sizeof(struct log_field)
#define LOG_NO_FIELDS NULL, (size_t)0

/*
 * One event: for people the sentence, in JSON no sentence but the event's name (one word, as "msg")
 * and its fields; a text without bytes is left out. Texts that do not fit into 4 KiB together are
 * cut and end with "...".
 *
 *	log_event(l, LOG_WARN, "worker_moved", LOG_FIELDS(LOG_TEXT("worker", url)),
 *		  "worker %s: moved", url);
 */
void log_event(struct log *l, enum log_level level, const char *event,
	       const struct log_field *field, size_t n, const char *fmt, ...) PD_PRINTF(6, 7);

/*
 * One event that is a JSON object in both forms. `members` is the inside of an object, already
 * valid JSON
 * ("\"selected\":[\"http://w1\"]"); it is appended after ts, level and msg. No length is too long
 * for it, but a line that does not fit into the free part of the buffer (1 MiB in all) is dropped
 * and counted.
 */
void log_json(struct log *l, enum log_level level, const char *msg, const char *members);

/* One finished line, its end included, as it is. NULL log: nothing. */
void log_put(struct log *l, const char *line, size_t n);

/* A line that the caller could not make: it counts as dropped. NULL log: nothing. */
void log_lost(struct log *l);

/* Lines dropped so far because the reader stalled. */
uint64_t log_dropped(const struct log *l);

#endif
