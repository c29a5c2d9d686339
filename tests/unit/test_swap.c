/* Two places, one current: readers see whole things and none that is freed; a writer waits for the
 * readers of the old one, and for no others. */
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>

#include "lib/base/clock.h"
#include "lib/base/swap.h"

#define READERS 4
#define CHANGES 2000
#define WORDS	16

struct thing {
	uint64_t word[WORDS]; /* all the same */
};

struct cell {
	struct swap swap;
	struct thing *place[2];
	_Atomic bool stop;
	_Atomic int looks;
};

static struct thing *thing_new(uint64_t n)
{
	struct thing *t = malloc(sizeof(*t));

	assert_non_null(t);
	for (int i = 0; i < WORDS; i++)
		t->word[i] = n;
	return t;
}

static void put(struct cell *c, uint64_t n)
{
	unsigned old;

	c->place[swap_spare(&c->swap)] = thing_new(n);
	old = swap_publish(&c->swap);
	free(c->place[old]);
	c->place[old] = NULL;
}

static void *read_on(void *arg)
{
	struct cell *c = arg;
	uint64_t seen = 0;

	while (!atomic_load(&c->stop)) {
		struct swap_look look = swap_enter(&c->swap);
		const struct thing *t = c->place[look.place];

		assert_true(t->word[0] >= seen); /* never back to an older one */
		seen = t->word[0];
		for (int i = 1; i < WORDS; i++)
			assert_int_equal(t->word[i], seen);
		swap_leave(look);
		atomic_fetch_add(&c->looks, 1);
	}
	return NULL;
}

static void readers_and_a_writer(void **state)
{
	struct cell *c = aligned_alloc(64, sizeof(*c));
	pthread_t t[READERS];

	(void)state;
	assert_non_null(c);
	*c = (struct cell){.stop = false};
	put(c, 1);
	for (int i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, read_on, c), 0);
	for (uint64_t n = 2; n < CHANGES; n++)
		put(c, n);
	while (atomic_load(&c->looks) < 100)
		clock_sleep_until(clock_now() + NS_PER_MS);
	atomic_store(&c->stop, true);
	for (int i = 0; i < READERS; i++)
		(void)pthread_join(t[i], NULL);
	free(c->place[0]);
	free(c->place[1]);
	free(c);
}

struct change {
	struct cell *cell;
	_Atomic bool done;
};

static void *change(void *arg)
{
	struct change *ch = arg;

	put(ch->cell, 2);
	atomic_store(&ch->done, true);
	return NULL;
}

static void a_writer_waits_for_who_looks_at_the_old_one(void **state)
{
	struct cell *c = aligned_alloc(64, sizeof(*c));
	struct change ch = {.cell = c};
	struct swap_look old, fresh;
	pthread_t t;

	(void)state;
	assert_non_null(c);
	*c = (struct cell){.stop = false};
	put(c, 1);
	old = swap_enter(&c->swap);
	assert_int_equal(pthread_create(&t, NULL, change, &ch), 0);
	do { /* a new look, while the old one goes on, sees the new thing */
		fresh = swap_enter(&c->swap);
		swap_leave(fresh);
	} while (fresh.place == old.place);
	assert_false(atomic_load(&ch.done));
	assert_int_equal(c->place[old.place]->word[0], 1);
	swap_leave(old);
	(void)pthread_join(t, NULL);
	assert_true(atomic_load(&ch.done));
	free(c->place[0]);
	free(c->place[1]);
	free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(readers_and_a_writer),
		cmocka_unit_test(a_writer_waits_for_who_looks_at_the_old_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
