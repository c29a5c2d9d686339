/* Names that are found, that do not exist and that hang: nobody waits longer than its deadline, and
 * nobody for another's name. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>

#include "lib/net/resolver.h"
#include "tests/unit/slow_names.h"

#define LONG  (20 * NS_PER_S)
#define SHORT (50 * NS_PER_MS)
#define MANY  40

/* An asker that looks every millisecond. */
static bool doze(void *who, int64_t deadline)
{
	int64_t soon = clock_now() + NS_PER_MS;

	(void)who;
	clock_sleep_until(soon < deadline ? soon : deadline);
	return false;
}

static bool leave(void *who, int64_t deadline)
{
	(void)who;
	(void)deadline;
	return true;
}

static void wake(void *who)
{
	(void)who;
}

static struct resolver *r;
static struct net_addrs found;
static struct pd_msg msg;

static int find(const char *host, int64_t limit)
{
	const struct errand_sleeper who = {doze, wake, NULL};

	return resolver_find(r, host, 80, &who, clock_now() + limit, &found, &msg);
}

static void is_local(const char *host)
{
	const struct sockaddr_in *a = &found.a[0].sa.v4;

	found = (struct net_addrs){.n = 0};
	assert_int_equal(find(host, LONG), PD_OK);
	assert_int_equal(a->sin_family, AF_INET);
	assert_int_equal(a->sin_addr.s_addr, htonl(INADDR_LOOPBACK));
	assert_int_equal(a->sin_port, htons(80));
}

static void says(const char *part)
{
	if (!strstr(msg.text, part))
		fail_msg("'%s' lacks '%s'", msg.text, part);
}

static void answers(void **state)
{
	char name[300];

	(void)state;
	is_local("127.0.0.1");
	assert_int_equal(names_asked, 0);
	assert_int_equal(find("::1", LONG), PD_OK);
	assert_int_equal(found.a[0].sa.any.sa_family, AF_INET6);
	assert_int_equal(names_asked, 0);
	is_local("good.test");
	is_local("good.test");
	assert_int_equal(names_asked, 2); /* an address may change */
	assert_int_equal(find("none.test", LONG), PD_ENOENT);
	says("cannot resolve host 'none.test': ");
	memset(name, 'a', sizeof(name));
	name[299] = '\0';
	assert_int_equal(find(name, LONG), PD_EINVAL);
	says("299 bytes");
	name[255] = '\0';
	assert_int_equal(find(name, LONG), PD_ENOENT);
	names_release();
}

static void *ask_one(void *arg)
{
	const struct errand_sleeper who = {doze, wake, NULL};
	struct net_addrs a;

	return (void *)(intptr_t)resolver_find(r, arg, 80, &who, clock_now() + SHORT, &a, NULL);
}

static void names_that_hang(void **state)
{
	const struct errand_sleeper leaver = {leave, wake, NULL};
	char name[RESOLVER_MAX + 1][16];
	pthread_t t[MANY];
	void *result;

	(void)state;
	memcpy(name[0], "hang", 5);
	/* All who want one name wait for one look-up, each as long as it likes. */
	for (int i = 0; i < MANY; i++)
		assert_int_equal(pthread_create(&t[i], NULL, ask_one, name[0]), 0);
	for (int i = 0; i < MANY; i++) {
		(void)pthread_join(t[i], &result);
		assert_int_equal((intptr_t)result, PD_ETIMEOUT);
	}
	assert_int_equal(find("hang", SHORT), PD_ETIMEOUT);
	says("cannot resolve host 'hang': timed out");
	assert_int_equal(names_asked, 1);
	assert_int_equal(resolver_find(r, "hang", 80, &leaver, clock_now() + LONG, &found, &msg),
			 PD_ECANCELED);
	is_local("good.test"); /* meanwhile */

	/* There are not more look-ups than that. */
	for (int i = 1; i <= RESOLVER_MAX; i++) {
		(void)snprintf(name[i], sizeof(name[i]), "hang%d", i);
		assert_int_equal(find(name[i], SHORT / 10),
				 i < RESOLVER_MAX ? PD_ETIMEOUT : PD_EBUSY);
	}
	assert_int_equal(find("good.test", LONG), PD_EBUSY);
	says("too many look-ups pending");
	is_local("127.0.0.1");
	names_release();
	/* The names are free again when the threads are through. */
	for (int64_t end = clock_now() + LONG; find("good.test", LONG) == PD_EBUSY;)
		assert_true(clock_now() < end);
	is_local("good.test");
	names_release();
}

static int set_up(void **state)
{
	(void)state;
	return resolver_new(&r);
}

static int tear_down(void **state)
{
	(void)state;
	resolver_free(r);
	resolver_free(NULL);
	return 0;
}

/* The end does not wait for a name for ever, and the late look-up harms nobody. */
static void an_end_with_a_name_that_hangs(void **state)
{
	(void)state;
	assert_int_equal(resolver_new(&r), PD_OK);
	assert_int_equal(find("hang", SHORT), PD_ETIMEOUT);
	resolver_free(r);
	assert_int_equal(names_hanging, 1);
	names_release();
	clock_sleep_until(clock_now() + SHORT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(answers, set_up, tear_down),
		cmocka_unit_test_setup_teardown(names_that_hang, set_up, tear_down),
		cmocka_unit_test(an_end_with_a_name_that_hangs),
	};

	return cmocka_run_group_tests_name("resolver", tests, NULL, NULL);
}
