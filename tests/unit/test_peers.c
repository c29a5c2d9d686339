/* Counts per address against a plain model, while thousands of addresses come and go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>

#include "lib/base/rng.h"
#include "lib/http/peers.h"

#define ADDRESSES 300
#define OPEN_MAX  500
#define LIMIT	  4

static struct sockaddr_storage address(const char *text)
{
	struct sockaddr_storage sa = {0};
	struct sockaddr_in *v4 = (struct sockaddr_in *)&sa;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&sa;

	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
	} else {
		assert_int_equal(inet_pton(AF_INET6, text, &v6->sin6_addr), 1);
		v6->sin6_family = AF_INET6;
	}
	return sa;
}

static bool enter(struct peers *p, const char *text, uint64_t *id)
{
	struct sockaddr_storage sa = address(text);

	return peers_enter(p, (const struct sockaddr *)&sa, id);
}

static void who_is_the_same(void **state)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct peers p;
	uint64_t a, b, c;

	(void)state;
	assert_int_equal(peers_init(&p, 1, 8), PD_OK);
	assert_true(enter(&p, "10.0.0.1", &a));
	assert_false(enter(&p, "10.0.0.1", &b));
	assert_false(enter(&p, "::ffff:10.0.0.1", &b));
	assert_true(enter(&p, "10.0.0.2", &b));
	peers_leave(&p, a);
	assert_true(enter(&p, "::ffff:10.0.0.1", &a));
	assert_true(enter(&p, "2001:db8:0:1::1", &c));
	assert_false(enter(&p, "2001:db8:0:1:ffff::2", &b));
	assert_true(enter(&p, "2001:db8:0:2::1", &b));
	assert_true(enter(&p, "::1", &b));
	assert_false(enter(&p, "::1", &c));
	for (int i = 0; i < 3; i++)
		assert_true(peers_enter(&p, (const struct sockaddr *)&un, &b));
	assert_int_equal(b, 0);
	peers_leave(&p, 0);
	peers_release(&p);
	assert_int_equal(peers_init(&p, 0, 8), PD_OK);
	for (int i = 0; i < 100; i++)
		assert_true(enter(&p, "10.0.0.1", &a));
	peers_leave(&p, a);
	peers_release(&p);
}

static void counts_are_those_of_a_model(void **state)
{
	static unsigned model[ADDRESSES];
	static struct {
		unsigned who;
		uint64_t id;
	} open[OPEN_MAX];
	size_t n = 0;
	struct peers p;
	struct rng r;

	(void)state;
	rng_seed(&r, 7);
	assert_int_equal(peers_init(&p, LIMIT, OPEN_MAX), PD_OK);
	for (int i = 0; i < 200000; i++) {
		unsigned who = (unsigned)rng_below(&r, ADDRESSES);
		struct sockaddr_in sa = {.sin_family = AF_INET,
					 .sin_addr.s_addr = htonl(0x0a000000 + who)};
		uint64_t id;

		/* Waves, so that the table fills and empties. */
		if (n < OPEN_MAX && rng_below(&r, 100) < (i / 5000 % 2 ? 30 : 70)) {
			bool in = peers_enter(&p, (const struct sockaddr *)&sa, &id);

			assert_int_equal(in, model[who] < LIMIT);
			if (in) {
				model[who]++;
				open[n].who = who;
				open[n++].id = id;
			}
		} else if (n > 0) {
			size_t k = (size_t)rng_below(&r, n);

			peers_leave(&p, open[k].id);
			model[open[k].who]--;
			open[k] = open[--n];
		}
	}
	while (n > 0)
		peers_leave(&p, open[--n].id);
	memset(model, 0, sizeof(model));
	for (unsigned who = 0; who < ADDRESSES; who++) {
		struct sockaddr_in sa = {.sin_family = AF_INET,
					 .sin_addr.s_addr = htonl(0x0a000000 + who)};
		uint64_t id;

		for (int i = 0; i <= LIMIT; i++)
			assert_int_equal(peers_enter(&p, (const struct sockaddr *)&sa, &id),
					 i < LIMIT);
	}
	peers_release(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_is_the_same),
		cmocka_unit_test(counts_are_those_of_a_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
