/* What a request's query says to the router's own routes. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "lib/router/admin/admin.h"

/* The value of "url" in the target, or NULL when there is none. */
static const char *query(const char *target, const char *name, struct buf *b)
{
	struct http_request r = {0};
	const char *mark = strchr(target, '?');

	r.head.target = span_of(target);
	r.head.path = (struct span){target, mark ? (size_t)(mark - target) : strlen(target)};
	buf_clear(b);
	switch (admin_query(&r, name, b)) {
	case PD_OK:
		return b->data ? b->data : "";
	case PD_ENOENT:
		return NULL;
	default:
		return "too long";
	}
}

static void parameters_are_found(void **state)
{
	static const struct {
		const char *target, *name, *value;
	} row[] = {
		{"/a?url=x", "url", "x"},
		{"/a?b=1&url=x&c=2", "url", "x"},
		{"/a?url=x&url=y", "url", "x"},
		{"/a?url=", "url", ""},
		{"/a?url", "url", ""},
		{"/a?url&b=1", "url", ""},
		{"/a?url=a=b", "url", "a=b"},
		{"/a?url=http%3A%2F%2Fh%3a80", "url", "http://h:80"},
		{"/a?url=a+b%2Bc", "url", "a b+c"},
		{"/a?url=100%", "url", "100%"},
		{"/a?url=%4", "url", "%4"},
		{"/a?url=%zz%41", "url", "%zzA"},
		{"/a?url=x?y", "url", "x?y"},
		{"/a?&&url=x", "url", "x"},
		{"/a", "url", NULL},
		{"/a?", "url", NULL},
		{"/a?&", "url", NULL},
		{"/a?urls=x", "url", NULL},
		{"/a?xurl=x", "url", NULL},
		{"/a?u=x", "url", NULL},
		{"/a?b=url=x", "url", NULL},
		{"/url=x", "url", NULL},
		{"/a?url=0123456789012345678901234567890123456789", "url", "too long"},
	};
	struct buf b;

	(void)state;
	buf_init(&b, 32);
	for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		const char *value = query(row[i].target, row[i].name, &b);

		if (!row[i].value)
			assert_null(value);
		else
			assert_string_equal(value, row[i].value);
	}
	buf_release(&b);
}

static void a_plus_in_a_path_is_a_plus(void **state)
{
	struct buf b;

	(void)state;
	buf_init(&b, 64);
	assert_int_equal(admin_percent_decode(SPAN("a+b%20c%00d"), false, &b), PD_OK);
	assert_int_equal(b.len, 7);
	assert_memory_equal(b.data, "a+b c\0d", 7);
	buf_release(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parameters_are_found),
		cmocka_unit_test(a_plus_in_a_path_is_a_plus),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
