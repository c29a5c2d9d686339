/*
 * Results are written beside their target and renamed, so that a run that is killed or out of
 * space leaves the old file or none, never half of one. Pipes and devices cannot be renamed over;
 * they are written directly.
 */
#include "lib/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_STEP 65536

static int fail_errno(struct pd_msg *msg, const char *what, const char *path)
{
	char text[128];
	int saved = errno;

	(void)pd_fail(msg, PD_EIO, "cannot %s '%s': %s", what, path,
		      pd_errno_text(saved, text, sizeof(text)));
	errno = saved;
	return PD_EIO;
}

static int read_all(int fd, const char *path, struct buf *b, struct pd_msg *msg)
{
	ssize_t n;
	int err;

	for (;;) {
		size_t room = b->max - b->len < READ_STEP ? b->max - b->len : READ_STEP;
		char probe;

		err = buf_reserve(b, room);
		if (err)
			return pd_fail(msg, err, "cannot read '%s': %s", path, pd_err_text(err));
		n = read(fd, room ? b->data + b->len : &probe, room ? room : 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail_errno(msg, "read", path);
		if (n == 0)
			return PD_OK;
		if (room == 0)
			return pd_fail(msg, PD_ETOOBIG, "cannot read '%s': larger than %zu bytes",
				       path, b->max);
		b->len += (size_t)n;
		b->data[b->len] = '\0';
	}
}

int file_read(const char *path, struct buf *b, struct pd_msg *msg)
{
	bool standard = strcmp(path, "-") == 0;
	int fd = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
	int err;

	if (fd < 0)
		return fail_errno(msg, "open", path);
	err = read_all(fd, path, b, msg);
	if (!standard)
		(void)close(fd);
	return err;
}

int file_write_fd(int fd, const void *data, size_t n)
{
	const char *p = data;
	ssize_t w;

	while (n > 0) {
		w = write(fd, p, n);
		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0)
			return PD_EIO;
		p += w;
		n -= (size_t)w;
	}
	return PD_OK;
}

static int write_direct(const char *path, const void *data, size_t n, struct pd_msg *msg)
{
	bool standard = strcmp(path, "-") == 0;
	int fd = standard ? STDOUT_FILENO : open(path, O_WRONLY | O_CLOEXEC);
	int err;

	if (fd < 0)
		return fail_errno(msg, "open", path);
	err = file_write_fd(fd, data, n);
	if (err)
		err = fail_errno(msg, "write", path);
	if (!standard && close(fd) < 0 && !err)
		err = fail_errno(msg, "write", path);
	return err;
}

static int write_and_rename(const char *path, const char *tmp, const void *data, size_t n,
			    struct pd_msg *msg)
{
	int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	int err = PD_OK;

	if (fd < 0)
		return fail_errno(msg, "create", path);
	if (file_write_fd(fd, data, n) || fsync(fd) < 0)
		err = fail_errno(msg, "write", path);
	if (close(fd) < 0 && !err)
		err = fail_errno(msg, "write", path);
	if (!err && rename(tmp, path) < 0)
		err = fail_errno(msg, "rename to", path);
	if (err)
		(void)unlink(tmp);
	return err;
}

int file_write(const char *path, const void *data, size_t n, struct pd_msg *msg)
{
	struct stat st;
	char *tmp;
	int err;

	if (strcmp(path, "-") == 0 || (stat(path, &st) == 0 && !S_ISREG(st.st_mode)))
		return write_direct(path, data, n, msg);
	if (asprintf(&tmp, "%s.tmp-%d", path, (int)getpid()) < 0)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	err = write_and_rename(path, tmp, data, n, msg);
	free(tmp);
	return err;
}
