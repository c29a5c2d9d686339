#include "sim/worker/kvshare.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/route/prefix.h"

#define PATH_TEXT 4096

static atomic_uint written;

/* The names of the entries, owned by the caller; *n 0: none. PD_ENOMEM. */
static int names_of(const struct kvshare_prompt *p, uint64_t **out, size_t *n)
{
	size_t whole = p->n > 0 ? (p->n - 1) / p->block_size * p->block_size : 0;
	size_t tokens = p->chunk ? p->chunk : whole, count;

	*out = NULL;
	*n = 0;
	if (tokens == 0 || p->n < tokens)
		return PD_OK;
	count = p->chunk ? p->n / tokens : 1;
	*out = malloc(count * sizeof(**out));
	if (!*out)
		return PD_ENOMEM;
	*n = route_blocks(p->salt, p->id, count * tokens * sizeof(*p->id), tokens * sizeof(*p->id),
			  *out, count);
	return PD_OK;
}

static bool path_of(const struct kvshare_prompt *p, uint64_t name, const char *end,
		    char path[PATH_TEXT])
{
	int n = snprintf(path, PATH_TEXT, "%s/%016" PRIx64 ".kv%s", p->path, name, end);

	return n > 0 && n < PATH_TEXT;
}

bool kvshare_has(const struct kvshare_prompt *p)
{
	uint64_t *name;
	char path[PATH_TEXT];
	size_t n;
	bool all = names_of(p, &name, &n) == PD_OK && n > 0;

	for (size_t i = n; all && i-- > 0;)
		all = path_of(p, name[i], "", path) && access(path, R_OK) == 0;
	free(name);
	return all;
}

/* Whole or not at all: under another name first. */
static int write_one(const struct kvshare_prompt *p, uint64_t name, size_t tokens)
{
	char path[PATH_TEXT], part[PATH_TEXT], end[32], text[80];
	int fd, n, err = PD_OK;

	(void)snprintf(end, sizeof(end), ".%d", (int)getpid());
	if (!path_of(p, name, "", path) || !path_of(p, name, end, part)) {
		errno = ENAMETOOLONG;
		return PD_EIO;
	}
	n = snprintf(text, sizeof(text), "{\"tokens\":%zu,\"block_size\":%u}\n", tokens,
		     p->block_size);
	fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return PD_EIO;
	if (write(fd, text, (size_t)n) != n)
		err = PD_EIO;
	if (close(fd) != 0 && !err)
		err = PD_EIO;
	if (!err && rename(part, path) != 0)
		err = PD_EIO;
	if (err)
		(void)unlink(part);
	return err;
}

int kvshare_store(const struct kvshare_prompt *p, size_t *stored)
{
	char path[PATH_TEXT];
	uint64_t *name;
	size_t n;
	int err = names_of(p, &name, &n);

	*stored = 0;
	if (!err && n > 0 && mkdir(p->path, 0755) != 0 && errno != EEXIST)
		err = PD_EIO;
	for (size_t i = 0; !err && i < n; i++) {
		if (path_of(p, name[i], "", path) && access(path, F_OK) == 0)
			continue;
		if (atomic_fetch_add(&written, 1) >= KVSHARE_ENTRIES_MAX) {
			(void)atomic_fetch_sub(&written, 1);
			err = PD_EBUSY;
			break;
		}
		err = write_one(p, name[i],
				p->chunk ? (i + 1) * p->chunk
					 : (p->n - 1) / p->block_size * p->block_size);
		*stored += err == PD_OK;
	}
	free(name);
	return err;
}
