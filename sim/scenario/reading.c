/* Values, and where they stand. */
#include "sim/scenario/reading.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/nearest.h"

int scn_at(const struct scenario *s, struct pd_msg *msg, const char *path, size_t column,
	   const char *fmt, ...)
{
	const struct yamlpos_entry *e = yamlpos_find(&s->pos, path);
	char text[400];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return pd_fail(msg, PD_EINVAL, "%s:%zu:%zu: %s", s->path, e ? e->value_line : 1,
		       e ? (column ? e->text_column + column - 1 : e->value_column) : 1, text);
}

const char *scn_place(struct scenario *s, const char *path)
{
	const struct yamlpos_entry *e = yamlpos_find(&s->pos, path);
	char **grown = reallocarray(s->place, s->nplaces + 1, sizeof(char *));

	if (!grown)
		return NULL;
	s->place = grown;
	if (asprintf(&grown[s->nplaces], "%s:%zu:%zu", s->path, e ? e->value_line : 1,
		     e ? e->value_column : 1) < 0)
		return NULL;
	return grown[s->nplaces++];
}

int scn_whole(const struct scenario *s, const char *path, const uint64_t *from, uint64_t min,
	      uint64_t max, uint64_t *to, struct pd_msg *msg)
{
	if (!from)
		return PD_OK;
	if (*from > INT64_MAX) /* libcyaml accepts a minus sign */
		return scn_at(s, msg, path, 0,
			      "found %" PRId64 ": expected a whole number from %" PRIu64
			      " to %" PRIu64,
			      (int64_t)*from, min, max);
	if (*from < min || *from > max)
		return scn_at(s, msg, path, 0,
			      "found %" PRIu64 ": expected a whole number from %" PRIu64
			      " to %" PRIu64,
			      *from, min, max);
	*to = *from;
	return PD_OK;
}

int scn_real(const struct scenario *s, const char *path, const double *from, double min, double max,
	     double *to, struct pd_msg *msg)
{
	if (!from)
		return PD_OK;
	if (!(*from >= min && *from <= max))
		return scn_at(s, msg, path, 0, "found %g: expected a number from %g to %g", *from,
			      min, max);
	*to = *from;
	return PD_OK;
}

int scn_choice(const struct scenario *s, const char *path, const char *word,
	       const char *const *words, int *to, struct pd_msg *msg)
{
	const char *near;

	if (!word)
		return PD_OK;
	for (int i = 0; words[i]; i++) {
		if (strcmp(word, words[i]) != 0)
			continue;
		*to = i;
		return PD_OK;
	}
	near = nearest_word(word, words);
	return scn_at(s, msg, path, 0, "found '%.60s'%s%s%s: expected %s%s%s%s%s", word,
		      near ? ", did you mean '" : "", near ? near : "", near ? "'?" : "", words[0],
		      words[1] ? ", " : "", words[1] ? words[1] : "",
		      words[1] && words[2] ? ", " : "", words[1] && words[2] ? words[2] : "");
}

char *scn_beside(const struct scenario *s, const char *file)
{
	const char *slash = strrchr(s->path, '/');
	char *path = NULL;

	if (file[0] == '/' || !slash)
		return strdup(file);
	return asprintf(&path, "%.*s/%s", (int)(slash - s->path), s->path, file) < 0 ? NULL : path;
}
