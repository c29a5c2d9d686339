/* Answers questions about statistics from standard input, one line each, for the comparison with
 * scipy in tests/blackbox/test_stats.py:
 *
 *   upper T DF | quantile TAIL DF | welch LIMIT NA A... NB B... | pairs LIMIT N A... B...
 *   ranks NA A... NB B... | percentile P N V... | summary N V...
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/stats/logratio.h"
#include "lib/stats/rank.h"
#include "lib/stats/student.h"
#include "lib/stats/summary.h"

#define VALUES_MAX 4096

static double values[2][VALUES_MAX];

static double next(char **at)
{
	char *end;
	double v = strtod(*at, &end);

	if (end == *at)
		abort();
	*at = end;
	return v;
}

static size_t list(char **at, int which, size_t n)
{
	if (n == 0)
		n = (size_t)next(at);
	if (n > VALUES_MAX)
		abort();
	for (size_t i = 0; i < n; i++)
		values[which][i] = next(at);
	return n;
}

static void ratio(char *at, bool paired)
{
	double limit = next(&at);
	size_t na = list(&at, 0, 0), nb = list(&at, 1, paired ? na : 0);
	struct logratio r;

	if (paired ? logratio_paired(values[0], values[1], na, &r)
		   : logratio_welch(values[0], na, values[1], nb, &r))
		abort();
	printf("%.17g %.17g %.17g %.17g\n", r.shift, r.df, logratio_p(&r, limit, 1),
	       logratio_bound(&r, 0.1, 1));
}

static void answer(const char *what, char *at)
{
	struct rank_test t;
	size_t na, nb;
	double p;

	if (strcmp(what, "upper") == 0) {
		p = next(&at);
		printf("%.17g\n", student_upper(p, next(&at)));
	} else if (strcmp(what, "quantile") == 0) {
		p = next(&at);
		printf("%.17g\n", student_quantile(p, next(&at)));
	} else if (strcmp(what, "welch") == 0 || strcmp(what, "pairs") == 0) {
		ratio(at, what[0] == 'p');
	} else if (strcmp(what, "ranks") == 0) {
		na = list(&at, 0, 0);
		nb = list(&at, 1, 0);
		if (rank_mann_whitney(values[0], na, values[1], nb, &t))
			abort();
		printf("%.17g %.17g\n", t.u, t.p);
	} else if (strcmp(what, "percentile") == 0) {
		p = next(&at);
		na = list(&at, 0, 0);
		summary_sort(values[0], na);
		printf("%.17g\n", summary_percentile(values[0], na, p));
	} else if (strcmp(what, "summary") == 0) {
		struct summary s;

		na = list(&at, 0, 0);
		summary_sort(values[0], na);
		s = summary_of(values[0], na);
		printf("%.17g %.17g %.17g\n", s.mean, s.std, s.median);
	} else {
		abort();
	}
}

int main(void)
{
	static char line[1 << 20];

	while (fgets(line, sizeof(line), stdin)) {
		char *space = strchr(line, ' ');

		if (!space)
			abort();
		*space = '\0';
		answer(line, space + 1);
	}
	return 0;
}
