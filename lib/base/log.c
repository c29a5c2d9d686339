/*
 * Two buffers that swap: callers append to one under a mutex, the writer thread writes the other. A
 * caller therefore pays for formatting and a short critical section only; the thread sleeps on a
 * condition and gathers for 20 ms at most.
 */
#include "lib/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/buf.h"
#include "lib/base/check.h"
#include "lib/base/clock.h"
#include "lib/base/file.h"
#include "lib/base/span.h"

#define LOG_BUFFER_MAX (1u << 20)
#define LOG_WAKE_AT    (128u << 10)
#define LOG_LINE_MAX   4096
#define LOG_GATHER_NS  (20 * NS_PER_MS)

struct log {
	int fd;	     /* the writer thread's own */
	char *path;  /* owned; NULL: the caller owns the descriptor */
	int next_fd; /* -1, or what the thread goes on with */
	bool raw;    /* log_put only: no lines of the log's own */
	enum log_level level;
	bool json;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	pthread_t thread;
	struct buf active;
	struct buf writing; /* the thread's own */
	bool stop;
	bool urgent;
	_Atomic uint64_t dropped;
};

static const char *const level_names[] = {"debug", "info", "warn", "error", "off"};

int log_level_parse(const char *name, enum log_level *out)
{
	static const struct {
		const char *name;
		enum log_level level;
	} known[] = {{"debug", LOG_DEBUG},  {"info", LOG_INFO},	  {"warn", LOG_WARN},
		     {"warning", LOG_WARN}, {"error", LOG_ERROR}, {"critical", LOG_ERROR},
		     {"off", LOG_OFF}};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		if (strcmp(name, known[i].name) == 0) {
			*out = known[i].level;
			return PD_OK;
		}
	}
	return PD_EINVAL;
}

static void report_dropped(struct log *l, uint64_t *reported)
{
	uint64_t now = atomic_load_explicit(&l->dropped, memory_order_relaxed);
	char line[128];
	int n;

	if (now == *reported || l->raw)
		return;
	n = snprintf(line, sizeof(line),
		     "{\"level\":\"warn\",\"msg\":\"log lines dropped\",\"dropped\":%llu}\n",
		     (unsigned long long)(now - *reported));
	if (file_write_fd(l->fd, line, (size_t)n) == PD_OK)
		*reported = now;
}

static void gather(struct log *l)
{
	struct timespec ts;
	int64_t until = clock_now() + LOG_GATHER_NS;

	ts = (struct timespec){.tv_sec = until / NS_PER_S, .tv_nsec = until % NS_PER_S};
	while (!l->stop && !l->urgent && pthread_cond_timedwait(&l->wake, &l->lock, &ts) == 0)
		continue;
	l->urgent = false;
}

static uint64_t count_lines(const struct buf *b)
{
	const char *p = b->data, *end = p + b->len;
	uint64_t n = 0;

	while (p < end && (p = memchr(p, '\n', (size_t)(end - p)))) {
		p++;
		n++;
	}
	return n;
}

/* With the lock held. */
static void change_file(struct log *l)
{
	if (l->next_fd < 0)
		return;
	(void)close(l->fd);
	l->fd = l->next_fd;
	l->next_fd = -1;
}

static void *writer(void *arg)
{
	struct log *l = arg;
	struct buf swap;
	uint64_t reported = 0;

	(void)pthread_mutex_lock(&l->lock);
	while (!l->stop || l->active.len > 0) {
		change_file(l);
		if (l->active.len == 0) {
			(void)pthread_cond_wait(&l->wake, &l->lock);
			continue;
		}
		gather(l);
		change_file(l);
		swap = l->active;
		l->active = l->writing;
		l->writing = swap;
		(void)pthread_mutex_unlock(&l->lock);
		/* There is no other place to report a log that cannot be written: its lines are
		 * counted. */
		if (file_write_fd(l->fd, l->writing.data, l->writing.len))
			atomic_fetch_add_explicit(&l->dropped, count_lines(&l->writing),
						  memory_order_relaxed);
		buf_clear(&l->writing);
		report_dropped(l, &reported);
		(void)pthread_mutex_lock(&l->lock);
	}
	(void)pthread_mutex_unlock(&l->lock);
	return NULL;
}

struct log *log_new(int fd, enum log_level level, bool json)
{
	struct log *l = calloc(1, sizeof(*l));
	pthread_condattr_t attr;

	PD_CHECK(fd >= 0 && level <= LOG_OFF);
	if (!l)
		return NULL;
	l->fd = fd;
	l->next_fd = -1;
	l->level = level;
	l->json = json;
	buf_init(&l->active, LOG_BUFFER_MAX);
	buf_init(&l->writing, LOG_BUFFER_MAX);
	(void)pthread_mutex_init(&l->lock, NULL);
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&l->wake, &attr);
	(void)pthread_condattr_destroy(&attr);
	if (pthread_create(&l->thread, NULL, writer, l) != 0) {
		free(l);
		return NULL;
	}
	return l;
}

static int open_file(const char *path, int *fd, struct pd_msg *msg)
{
	char text[128];

	*fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
	return *fd >= 0 ? PD_OK
			: pd_fail(msg, PD_EIO, "cannot open '%s': %s", path,
				  pd_errno_text(errno, text, sizeof(text)));
}

int log_open(struct log **out, const char *path, struct pd_msg *msg)
{
	bool standard = strcmp(path, "-") == 0;
	int fd = STDOUT_FILENO, err = standard ? PD_OK : open_file(path, &fd, msg);
	char *copy = standard ? NULL : strdup(path);

	*out = NULL;
	if (err) {
		free(copy);
		return err;
	}
	if (standard || copy)
		*out = log_new(fd, LOG_DEBUG, false);
	if (!*out) {
		if (!standard)
			(void)close(fd);
		free(copy);
		return pd_fail(msg, PD_ENOMEM, "cannot start the log thread");
	}
	(*out)->path = copy;
	(*out)->raw = true;
	return PD_OK;
}

int log_reopen(struct log *l, struct pd_msg *msg)
{
	int fd, err, unused = -1;

	if (!l || !l->path)
		return PD_OK;
	err = open_file(l->path, &fd, msg);
	if (err)
		return err;
	(void)pthread_mutex_lock(&l->lock);
	unused = l->next_fd;
	l->next_fd = fd;
	(void)pthread_cond_signal(&l->wake);
	(void)pthread_mutex_unlock(&l->lock);
	if (unused >= 0)
		(void)close(unused);
	return PD_OK;
}

void log_stop(struct log *l)
{
	if (!l)
		return;
	(void)pthread_mutex_lock(&l->lock);
	l->stop = true;
	(void)pthread_cond_signal(&l->wake);
	(void)pthread_mutex_unlock(&l->lock);
	(void)pthread_join(l->thread, NULL);
}

void log_free(struct log *l)
{
	if (!l)
		return;
	log_stop(l);
	(void)pthread_mutex_destroy(&l->lock);
	(void)pthread_cond_destroy(&l->wake);
	buf_release(&l->active);
	buf_release(&l->writing);
	if (l->next_fd >= 0)
		(void)close(l->next_fd);
	if (l->path)
		(void)close(l->fd);
	free(l->path);
	free(l);
}

bool log_wants(const struct log *l, enum log_level level)
{
	return l && level >= l->level;
}

bool log_is_json(const struct log *l)
{
	return l && l->json;
}

uint64_t log_dropped(const struct log *l)
{
	PD_CHECK(l);
	return atomic_load_explicit(&l->dropped, memory_order_relaxed);
}

void log_lost(struct log *l)
{
	if (l)
		atomic_fetch_add_explicit(&l->dropped, 1, memory_order_relaxed);
}

/* A line in pieces: whole, or dropped and counted. */
static void append(struct log *l, enum log_level level, const struct span *piece, size_t n)
{
	size_t before;
	int err = PD_OK;

	(void)pthread_mutex_lock(&l->lock);
	before = l->active.len;
	for (size_t i = 0; !err && i < n; i++)
		err = buf_append(&l->active, piece[i].p, piece[i].n);
	if (err) {
		l->active.len = before;
		atomic_fetch_add_explicit(&l->dropped, 1, memory_order_relaxed);
	}
	if (level >= LOG_WARN || l->active.len > LOG_WAKE_AT)
		l->urgent = true;
	if (before == 0 || l->urgent)
		(void)pthread_cond_signal(&l->wake);
	(void)pthread_mutex_unlock(&l->lock);
}

void log_put(struct log *l, const char *line, size_t n)
{
	PD_CHECK(n > 0 && line[n - 1] == '\n');
	if (l)
		append(l, LOG_INFO, &(struct span){line, n}, 1);
}

/* Escapes for both forms: quotes and backslashes only inside JSON, control bytes always. */
static size_t escape(char *out, size_t cap, struct span s, bool json)
{
	static const char hex[] = "0123456789abcdef";
	size_t n = 0, i = 0;

	for (; i < s.n && n + 10 < cap; i++) {
		unsigned char c = (unsigned char)s.p[i];

		if (c < 0x20 || c == 0x7f) {
			memcpy(out + n, "\\u00", 4);
			out[n + 4] = hex[c >> 4];
			out[n + 5] = hex[c & 15];
			n += 6;
			continue;
		}
		if (json && (c == '"' || c == '\\'))
			out[n++] = '\\';
		out[n++] = (char)c;
	}
	if (i < s.n && n + 3 <= cap) {
		memcpy(out + n, "...", 3);
		n += 3;
	}
	return n;
}

static size_t head(enum log_level level, bool json, char *out, size_t cap)
{
	char when[32];
	int n;

	clock_rfc3339(clock_wall(), when, sizeof(when));
	if (json)
		n = snprintf(out, cap, "{\"ts\":\"%s\",\"level\":\"%s\",\"msg\":\"", when,
			     level_names[level]);
	else
		n = snprintf(out, cap, "%s %-5s ", when, level_names[level]);
	return (size_t)n;
}

/* The sentence of a line for people, or the whole of a line without fields. */
PD_PRINTF(3, 0)
static void put_sentence(struct log *l, enum log_level level, const char *fmt, va_list ap)
	PD_PRINTF(3, 0);

static void put_sentence(struct log *l, enum log_level level, const char *fmt, va_list ap)
{
	static const char cut[] = "...";
	char text[LOG_LINE_MAX], line[LOG_LINE_MAX + 128];
	int length = vsnprintf(text, sizeof(text), fmt, ap);
	size_t n;

	if (length >= LOG_LINE_MAX)
		memcpy(text + LOG_LINE_MAX - sizeof(cut), cut, sizeof(cut));
	n = head(level, l->json, line, sizeof(line));
	n += escape(line + n, sizeof(line) - n - 3, span_of(text), l->json);
	if (l->json) {
		line[n++] = '"';
		line[n++] = '}';
	}
	line[n++] = '\n';
	append(l, level, &(struct span){line, n}, 1);
}

void log_line(struct log *l, enum log_level level, const char *fmt, ...)
{
	va_list ap;

	PD_CHECK(level < LOG_OFF);
	if (!log_wants(l, level))
		return;
	va_start(ap, fmt);
	put_sentence(l, level, fmt, ap);
	va_end(ap);
}

/* ,"name":value at the end of the line; what does not fit is cut, or left out. */
static size_t put_field(char *out, size_t cap, const struct log_field *f)
{
	int n = snprintf(out, cap, ",\"%s\":", f->name);
	size_t at = (size_t)n;

	if (n < 0 || at + 48 > cap)
		return 0;
	if (f->kind == LOG_IS_TEXT) {
		out[at++] = '"';
		at += escape(out + at, cap - at - 2, f->text, true);
		out[at++] = '"';
	} else {
		n = f->kind == LOG_IS_NUMBER
			    ? snprintf(out + at, cap - at, "%lld", (long long)f->number)
			    : snprintf(out + at, cap - at, "%.3f", f->real);
		at += (size_t)n;
	}
	return at;
}

static void put_fields(struct log *l, enum log_level level, const char *event,
		       const struct log_field *field, size_t n)
{
	char line[LOG_LINE_MAX + 128];
	size_t at = head(level, true, line, sizeof(line));

	at += escape(line + at, 64, span_of(event), true);
	line[at++] = '"';
	for (size_t i = 0; i < n; i++)
		if (field[i].kind != LOG_IS_TEXT || field[i].text.n > 0)
			at += put_field(line + at, sizeof(line) - at - 2, &field[i]);
	line[at++] = '}';
	line[at++] = '\n';
	append(l, level, &(struct span){line, at}, 1);
}

void log_event(struct log *l, enum log_level level, const char *event,
	       const struct log_field *field, size_t n, const char *fmt, ...)
{
	va_list ap;

	PD_CHECK(level < LOG_OFF && !strchr(event, ' '));
	if (!log_wants(l, level))
		return;
	if (l->json) {
		put_fields(l, level, event, field, n);
		return;
	}
	va_start(ap, fmt);
	put_sentence(l, level, fmt, ap);
	va_end(ap);
}

void log_json(struct log *l, enum log_level level, const char *msg, const char *members)
{
	char line[512];
	size_t n, m;

	PD_CHECK(level < LOG_OFF && !strchr(members, '\n'));
	if (!log_wants(l, level))
		return;
	n = head(level, true, line, sizeof(line));
	n += escape(line + n, sizeof(line) - n, span_of(msg), true);
	m = strlen(members);
	append(l, level,
	       (const struct span[]){{line, n}, {"\",", m ? 2 : 1}, {members, m}, {"}\n", 2}}, 4);
}
