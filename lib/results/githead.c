/* HEAD is a commit, or "ref: NAME"; the name is a file below the common folder, or a line of
 * packed-refs. Nothing else of git is needed, so no library is. */
#include "lib/results/githead.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/base/file.h"

#define UP_MAX	   64
#define NAME_CAP   1024
#define PACKED_MAX ((size_t)16 << 20)

/* out = folder/name, or name when that is absolute; empty, which is no file, when it is too long.
 */
static void join(char out[NAME_CAP], const char *folder, const char *name)
{
	size_t n = name[0] == '/' ? 0 : strlen(folder), m = strlen(name);

	out[0] = '\0';
	if (n + m + 2 > NAME_CAP)
		return;
	memcpy(out, folder, n);
	out[n] = '/';
	n += n > 0 || name[0] != '/';
	memcpy(out + n, name, m + 1);
}

/* The first line of a file into out; false when it is not there or too long. */
static bool first_line(const char *path, char *out, size_t cap)
{
	struct buf text;
	size_t n = 0;

	buf_init(&text, cap - 1);
	if (file_read(path, &text, NULL) == PD_OK) {
		while (n < text.len && text.data[n] != '\n' && text.data[n] != '\r')
			n++;
		memcpy(out, text.data, n);
	}
	out[n] = '\0';
	buf_release(&text);
	return n > 0;
}

static bool is_commit(const char *text, size_t n)
{
	if (n != 40 && n != 64)
		return false;
	for (size_t i = 0; i < n; i++)
		if (!isxdigit((unsigned char)text[i]))
			return false;
	return true;
}

static bool packed(const char *folder, const char *ref, char out[GITHEAD_CAP])
{
	char path[NAME_CAP];
	bool found = false;
	struct buf text;

	join(path, folder, "packed-refs");
	buf_init(&text, PACKED_MAX);
	if (file_read(path, &text, NULL) == PD_OK && text.data)
		for (char *line = text.data, *end; !found && *line; line = end) {
			char *space;

			end = strchrnul(line, '\n');
			space = memchr(line, ' ', (size_t)(end - line));
			found = space && is_commit(line, (size_t)(space - line)) &&
				strlen(ref) == (size_t)(end - space - 1) &&
				memcmp(space + 1, ref, strlen(ref)) == 0;
			if (found)
				(void)snprintf(out, GITHEAD_CAP, "%.*s", (int)(space - line), line);
			end += *end == '\n';
		}
	buf_release(&text);
	return found;
}

/* `git` is the folder with HEAD; a worktree's refs are in the common folder. */
static void read_head(const char *git, char out[GITHEAD_CAP])
{
	char path[NAME_CAP], head[NAME_CAP], line[NAME_CAP], common[NAME_CAP];

	join(path, git, "HEAD");
	if (!first_line(path, head, sizeof(head)))
		return;
	if (strncmp(head, "ref: ", 5) != 0) {
		if (is_commit(head, strlen(head)))
			memcpy(out, head, strlen(head) + 1);
		return;
	}
	join(path, git, "commondir");
	join(common, git, first_line(path, line, sizeof(line)) ? line : ".");
	join(path, common, head + 5);
	if (first_line(path, line, sizeof(line)) && is_commit(line, strlen(line)))
		memcpy(out, line, strlen(line) + 1);
	else if (!packed(common, head + 5, out))
		out[0] = '\0';
}

void githead(const char *folder, char out[GITHEAD_CAP])
{
	char at[NAME_CAP], git[NAME_CAP], text[NAME_CAP];
	struct stat st;

	out[0] = '\0';
	join(at, folder, ".");
	for (int up = 0; up < UP_MAX && at[0]; up++) {
		join(git, at, ".git");
		if (stat(git, &st) == 0) {
			if (S_ISREG(st.st_mode) && first_line(git, text, sizeof(text)) &&
			    strncmp(text, "gitdir: ", 8) == 0)
				join(git, at, text + 8);
			read_head(git, out);
			return;
		}
		join(git, at, "..");
		memcpy(at, git, sizeof(at));
	}
}
