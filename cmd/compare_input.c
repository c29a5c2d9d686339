/* A file that exists is that file, whatever characters its name has. */
#include "cmd/compare_input.h"

#include <glob.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/results/store_query.h"

static int check(const struct result_set *set, size_t from, struct pd_msg *msg)
{
	for (size_t i = from; i < set->n; i++)
		if (!result_has_metric(&set->doc[i]))
			return pd_fail(
				msg, PD_EINVAL,
				"'%s' holds no benchmark result: found no metric, expected keys "
				"such as mean_ttft_ms or request_throughput",
				set->doc[i].source);
	return PD_OK;
}

static int read_stored(struct result_set *set, const char *ref, const char *path,
		       struct pd_msg *msg)
{
	struct store *s = NULL;
	int64_t *ids = NULL;
	struct buf text;
	char name[32];
	size_t n = 0;
	int err;

	if (!path)
		return pd_fail(msg, PD_EINVAL, "found '%s', but there is no store (--store FILE)",
			       ref);
	err = store_open(path, &s, msg);
	if (!err)
		err = store_find(s, ref, &ids, &n, msg);
	buf_init(&text, RESULT_FILE_MAX);
	for (size_t i = 0; !err && i < n; i++) {
		buf_clear(&text);
		(void)snprintf(name, sizeof(name), "@%" PRId64, ids[i]);
		err = store_document(s, ids[i], &text, msg);
		if (!err)
			err = result_parse(set, name, buf_span(&text), msg);
	}
	buf_release(&text);
	free(ids);
	store_close(s);
	return err;
}

static int read_pattern(struct result_set *set, const char *pattern, struct pd_msg *msg)
{
	glob_t found = {0};
	int code = glob(pattern, 0, NULL, &found), err = PD_OK;

	if (code == GLOB_NOMATCH)
		err = pd_fail(msg, PD_EINVAL, "no file matches '%s'", pattern);
	else if (code != 0)
		err = pd_fail(msg, PD_EINVAL, "cannot look for '%s'", pattern);
	for (size_t i = 0; !err && i < found.gl_pathc; i++)
		err = result_read(set, found.gl_pathv[i], msg);
	globfree(&found);
	return err;
}

int compare_input(struct result_set *set, const char *word, const char *store, struct pd_msg *msg)
{
	size_t before = set->n;
	int err;

	if (word[0] == '@' && access(word, F_OK) != 0)
		err = read_stored(set, word, store, msg);
	else if (strpbrk(word, "*?[") && access(word, F_OK) != 0)
		err = read_pattern(set, word, msg);
	else
		err = result_read(set, word, msg);
	return err ? err : check(set, before, msg);
}
