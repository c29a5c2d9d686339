/* The order has no meaning. The table is walked for each request, so that it has no holes but
 * NULL. */
#include "lib/router/way/observers.h"

#include "lib/router/capture/capture_note.h"
#include "lib/router/page/page.h"
#include "lib/router/watch/access.h"
#include "lib/router/watch/explain.h"
#include "lib/router/watch/metrics_record.h"
#include "lib/router/watch/spans.h"
#include "lib/router/watch/tokens.h"

static const struct observer {
	const char *name;
	void (*decided)(const struct record *r);
	void (*answered)(const struct record *r);
	void (*ended)(const struct record *r);
} observers[] = {
	{"metrics", metrics_decided, metrics_answered, metrics_ended},
	{"tokens", NULL, NULL, tokens_ended},
	{"log", explain_decided, NULL, explain_ended},
	{"access log", NULL, NULL, access_ended},
	{"capture", capture_decided, NULL, capture_ended},
	{"page", page_decided, NULL, page_ended},
	{"spans", NULL, NULL, spans_ended},
};

#define OBSERVERS (sizeof(observers) / sizeof(observers[0]))

void record_decided(const struct record *r)
{
	for (size_t i = 0; i < OBSERVERS; i++)
		if (observers[i].decided)
			observers[i].decided(r);
}

void record_answered(const struct record *r)
{
	for (size_t i = 0; i < OBSERVERS; i++)
		if (observers[i].answered)
			observers[i].answered(r);
}

void record_ended(const struct record *r)
{
	for (size_t i = 0; i < OBSERVERS; i++)
		if (observers[i].ended)
			observers[i].ended(r);
}
