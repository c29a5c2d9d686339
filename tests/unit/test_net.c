/* Worker URLs and names: the parts of a URL, its one spelling, and all addresses of a name. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <string.h>

#include "lib/net/net.h"

static void a_url_has_one_spelling(void **state)
{
	static const struct {
		const char *text, *host, *base, *one;
		uint16_t port;
	} cases[] = {
		{"http://a:1", "a", "", "http://a:1", 1},
		{"HTTP://A.Example:1/", "a.example", "", "http://a.example:1", 1},
		{"HttpS://[2001:DB8::A]/V1//", "2001:db8::a", "/V1", "https://[2001:db8::a]/V1",
		 443},
		{"http://LOCALHOST/Base/v1@7", "localhost", "/Base/v1",
		 "http://localhost/Base/v1@7", 80},
	};
	char text[NET_URL_TEXT];
	struct net_url u;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(net_url_parse(&u, cases[i].text, NULL), PD_OK);
		assert_string_equal(u.host, cases[i].host);
		assert_string_equal(u.base, cases[i].base);
		assert_int_equal(u.port, cases[i].port);
		net_url_text(&u, text);
		assert_string_equal(text, cases[i].one);
		assert_int_equal(net_url_parse(&u, text, NULL), PD_OK);
	}
	assert_int_equal(net_url_parse(&u, "hTTps:/x", NULL), PD_EINVAL);
	assert_int_equal(net_url_parse(&u, "FTP://x", NULL), PD_EINVAL);
}

static void a_name_has_all_its_addresses(void **state)
{
	struct net_addrs all;
	struct net_addr one;

	(void)state;
	assert_int_equal(net_resolve_all(&all, "127.0.0.1", 9, NULL), PD_OK);
	assert_int_equal(all.n, 1);
	assert_int_equal(net_resolve(&one, "127.0.0.1", 9, NULL), PD_OK);
	assert_true(net_addr_same(&one, &all.a[0]));
	assert_int_equal(net_resolve(&one, "127.0.0.1", 10, NULL), PD_OK);
	assert_false(net_addr_same(&one, &all.a[0]));
	assert_int_equal(net_resolve_all(&all, "no-such-host.invalid", 9, NULL), PD_ENOENT);
	assert_int_equal(all.n, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_url_has_one_spelling),
		cmocka_unit_test(a_name_has_all_its_addresses),
	};

	return cmocka_run_group_tests_name("net", tests, NULL, NULL);
}
