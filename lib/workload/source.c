/* Both decoders are driven in the same way: while there is room, decode; when the input is empty,
 * refill it; at the end of a member or frame begin the next one if bytes follow. */
#include "lib/workload/source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>
#include <zlib.h>
#include <zstd.h>

#define IN_BYTES   ((size_t)128 << 10)
#define WINDOW_LOG 27 /* of zstd: 128 MiB, what `zstd` reads without --long too */

enum pack { PLAIN, GZIP, ZSTD };

struct source {
	char *name;	  /* owned */
	int fd;		  /* -1: from memory */
	struct span rest; /* of memory */
	enum pack pack;
	unsigned char *in; /* owned; [at, end) not decoded yet */
	size_t at, end;
	bool in_eof, inside; /* inside: a member or frame has begun and not ended */
	z_stream z;
	ZSTD_DStream *zd;
	XXH3_state_t *hash;
	uint64_t total, max;
};

/* More input behind what is left. */
static int refill(struct source *s, struct pd_msg *msg)
{
	char text[128];
	ssize_t n;

	if (s->at > 0 && s->at < s->end)
		memmove(s->in, s->in + s->at, s->end - s->at);
	s->end -= s->at;
	s->at = 0;
	if (s->in_eof || s->end == IN_BYTES)
		return PD_OK;
	if (s->fd < 0) {
		size_t take = s->rest.n < IN_BYTES - s->end ? s->rest.n : IN_BYTES - s->end;

		if (take > 0)
			memcpy(s->in + s->end, s->rest.p, take);
		s->rest.p += take;
		s->rest.n -= take;
		n = (ssize_t)take;
	} else {
		do {
			n = read(s->fd, s->in + s->end, IN_BYTES - s->end);
		} while (n < 0 && errno == EINTR);
	}
	if (n < 0)
		return pd_fail(msg, PD_EIO, "cannot read '%s': %s", s->name,
			       pd_errno_text(errno, text, sizeof(text)));
	s->end += (size_t)n;
	s->in_eof = n == 0;
	return PD_OK;
}

static int begin(struct source *s, struct pd_msg *msg)
{
	int err = PD_OK;

	/* a pipe may give its first bytes one by one */
	while (!err && !s->in_eof && s->end < 4)
		err = refill(s, msg);
	if (err)
		return err;
	if (s->end >= 2 && s->in[0] == 0x1f && s->in[1] == 0x8b)
		s->pack = GZIP;
	else if (s->end >= 4 && memcmp(s->in, "\x28\xb5\x2f\xfd", 4) == 0)
		s->pack = ZSTD;
	if (s->pack == GZIP && inflateInit2(&s->z, 15 + 16) != Z_OK) {
		s->pack = PLAIN;
		return PD_ENOMEM;
	}
	if (s->pack == ZSTD) {
		s->zd = ZSTD_createDStream();
		if (!s->zd)
			return PD_ENOMEM;
		(void)ZSTD_DCtx_setParameter(s->zd, ZSTD_d_windowLogMax, WINDOW_LOG);
	}
	s->inside = s->pack != PLAIN;
	return PD_OK;
}

static int make(struct source **out, const char *name, int fd, struct span text, struct pd_msg *msg)
{
	struct source *s = calloc(1, sizeof(*s));
	int err = s ? PD_OK : PD_ENOMEM;

	*out = NULL;
	if (s) {
		*s = (struct source){.fd = fd,
				     .rest = text,
				     .max = UINT64_MAX,
				     .name = strdup(name),
				     .in = malloc(IN_BYTES),
				     .hash = XXH3_createState()};
		if (!s->name || !s->in || !s->hash || XXH3_64bits_reset(s->hash) != XXH_OK)
			err = PD_ENOMEM;
	} else if (fd > STDIN_FILENO) {
		(void)close(fd);
	}
	if (!err)
		err = begin(s, msg);
	if (err == PD_ENOMEM)
		(void)pd_fail(msg, err, "cannot read '%s': out of memory", name);
	if (err)
		source_close(s);
	else
		*out = s;
	return err;
}

int source_open(struct source **out, const char *path, struct pd_msg *msg)
{
	bool standard = strcmp(path, "-") == 0;
	int fd = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
	char text[128];

	*out = NULL;
	if (fd < 0)
		return pd_fail(msg, PD_EIO, "cannot open '%s': %s", path,
			       pd_errno_text(errno, text, sizeof(text)));
	return make(out, standard ? "standard input" : path, fd, SPAN(""), msg);
}

int source_memory(struct source **out, struct span text, const char *name, struct pd_msg *msg)
{
	return make(out, name, -1, text, msg);
}

void source_close(struct source *s)
{
	if (!s)
		return;
	if (s->pack == GZIP)
		(void)inflateEnd(&s->z);
	(void)ZSTD_freeDStream(s->zd);
	if (s->fd > STDIN_FILENO)
		(void)close(s->fd);
	(void)XXH3_freeState(s->hash);
	free(s->name);
	free(s->in);
	free(s);
}

static int damaged(const struct source *s, const char *why, struct pd_msg *msg)
{
	return pd_fail(msg, PD_EPROTO, "cannot read '%s': damaged %s data: %s", s->name,
		       source_packed(s), why);
}

static int step_gzip(struct source *s, char *out, size_t cap, size_t *n, struct pd_msg *msg)
{
	int rc;

	if (!s->inside) {
		if (inflateReset(&s->z) != Z_OK)
			return damaged(s, "no further member can begin", msg);
		s->inside = true;
	}
	s->z.next_in = s->in + s->at;
	s->z.avail_in = (uInt)(s->end - s->at);
	s->z.next_out = (unsigned char *)out;
	s->z.avail_out = (uInt)cap;
	rc = inflate(&s->z, Z_NO_FLUSH);
	s->at = s->end - s->z.avail_in;
	*n = cap - s->z.avail_out;
	if (rc == Z_STREAM_END)
		s->inside = false;
	else if (rc != Z_OK && rc != Z_BUF_ERROR)
		return damaged(s, s->z.msg ? s->z.msg : "unknown content", msg);
	return PD_OK;
}

/* NOLINTNEXTLINE(readability-non-const-parameter): written through ZSTD_outBuffer */
static int step_zstd(struct source *s, char *out, size_t cap, size_t *n, struct pd_msg *msg)
{
	ZSTD_inBuffer in = {s->in, s->end, s->at};
	ZSTD_outBuffer to = {out, cap, 0};
	size_t left = ZSTD_decompressStream(s->zd, &to, &in);

	if (ZSTD_isError(left))
		return damaged(s, ZSTD_getErrorName(left), msg);
	s->at = in.pos;
	*n = to.pos;
	s->inside = left != 0;
	return PD_OK;
}

static int step(struct source *s, char *out, size_t cap, size_t *n, struct pd_msg *msg)
{
	size_t left = s->end - s->at;

	if (s->pack == GZIP)
		return step_gzip(s, out, cap, n, msg);
	if (s->pack == ZSTD)
		return step_zstd(s, out, cap, n, msg);
	*n = left < cap ? left : cap;
	memcpy(out, s->in + s->at, *n);
	s->at += *n;
	return PD_OK;
}

int source_read(struct source *s, char *out, size_t cap, size_t *n, struct pd_msg *msg)
{
	int err = PD_OK;

	if (cap > (size_t)1 << 30)
		cap = (size_t)1 << 30;
	for (*n = 0; !err && *n == 0 && cap > 0;) {
		size_t before;

		if (s->at == s->end)
			err = refill(s, msg);
		if (err)
			return err;
		before = s->at;
		if (s->at == s->end && s->in_eof && !s->inside)
			break;
		err = step(s, out, cap, n, msg);
		if (err || *n > 0 || s->at != before)
			continue;
		/* nothing in, nothing out: the decoder wants more than there is */
		if (s->in_eof)
			return s->pack == PLAIN ? PD_OK : damaged(s, "it ends in the middle", msg);
		err = refill(s, msg);
	}
	if (err)
		return err;
	s->total += *n;
	if (s->total > s->max)
		return pd_fail(msg, PD_ETOOBIG, "cannot read '%s': more than %llu bytes of content",
			       s->name, (unsigned long long)s->max);
	if (*n > 0 && XXH3_64bits_update(s->hash, out, *n) != XXH_OK)
		return PD_ENOMEM;
	return PD_OK;
}

void source_limit(struct source *s, uint64_t max)
{
	s->max = max;
}

uint64_t source_hash(const struct source *s)
{
	return XXH3_64bits_digest(s->hash);
}

const char *source_packed(const struct source *s)
{
	return s->pack == GZIP ? "gzip" : s->pack == ZSTD ? "zstd" : NULL;
}
