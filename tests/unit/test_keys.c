/* The keyed hash against published vectors; tables of keys from files, also while they are swapped.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include <pthread.h>

#include "lib/base/file.h"
#include "lib/router/keys/keys.h"

/* From the reference implementation: key 00 01 .. 0f, input 00 01 .. n-1. */
static void hash_vectors(void **state)
{
	static const struct {
		size_t n;
		unsigned char tag[16];
	} table[] = {
		{0, "\xa3\x81\x7f\x04\xba\x25\xa8\xe6\x6d\xf6\x72\x14\xc7\x55\x02\x93"},
		{1, "\xda\x87\xc1\xd8\x6b\x99\xaf\x44\x34\x76\x59\x11\x9b\x22\xfc\x45"},
		{7, "\xa1\xf1\xeb\xbe\xd8\xdb\xc1\x53\xc0\xb8\x4a\xa6\x1f\xf0\x82\x39"},
		{8, "\x3b\x62\xa9\xba\x62\x58\xf5\x61\x0f\x83\xe2\x64\xf3\x14\x97\xb4"},
		{15, "\x54\x93\xe9\x99\x33\xb0\xa8\x11\x7e\x08\xec\x0f\x97\xcf\xc3\xd9"},
		{63, "\x51\x50\xd1\x77\x2f\x50\x83\x4a\x50\x3e\x06\x9a\x97\x3f\xbd\x7c"},
	};
	struct sip_key key = {{UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908)}};
	unsigned char in[64];

	(void)state;
	for (size_t i = 0; i < sizeof(in); i++)
		in[i] = (unsigned char)i;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct sip_tag tag = sip_hash(&key, in, table[i].n);

		for (unsigned k = 0; k < 16; k++)
			assert_int_equal((unsigned char)(tag.t[k / 8] >> (8 * (k % 8))),
					 table[i].tag[k]);
	}
}

static void hash_depends_on_its_key(void **state)
{
	struct sip_key a, b;

	(void)state;
	sip_key_new(&a);
	sip_key_new(&b);
	assert_false(sip_equal(sip_hash(&a, "x", 1), sip_hash(&b, "x", 1)));
	assert_true(sip_equal(sip_hash(&a, "x", 1), sip_hash(&a, "x", 1)));
}

static char path[64];

static int load(struct key_table *t, const char *text)
{
	(void)snprintf(path, sizeof(path), "test-keys.%ld", (long)getpid());
	assert_int_equal(file_write(path, text, strlen(text), NULL), PD_OK);
	return key_table_read(t, path, NULL);
}

static void files(void **state)
{
	struct key_table t;
	struct keys keys = {0};

	(void)state;
	assert_false(keys_has(&keys, SPAN("a"))); /* before the first load */
	assert_int_equal(load(&t, "a\nb # x\n\tc#d\t\r\n#e\n"), PD_OK);
	assert_int_equal(t.n, 3);
	keys_swap(&keys, &t);
	assert_true(keys_has(&keys, SPAN("a")));
	assert_true(keys_has(&keys, SPAN("b")));
	assert_true(keys_has(&keys, SPAN("c#d")));
	assert_false(keys_has(&keys, SPAN("e")));
	assert_false(keys_has(&keys, SPAN("")));
	assert_false(keys_has(&keys, SPAN("aa")));
	assert_int_equal(load(&t, "a\na\n"), PD_EINVAL);
	assert_null(t.tag);
	assert_int_equal(load(&t, "a b\n"), PD_EINVAL);
	assert_int_equal(load(&t, "\n"), PD_EINVAL);
	assert_int_equal(load(&t, "b"), PD_OK);
	keys_swap(&keys, &t);
	assert_false(keys_has(&keys, SPAN("a")));
	assert_true(keys_has(&keys, SPAN("b")));
	keys_release(&keys);
	(void)unlink(path);
}

static struct keys shared;
static _Atomic bool stop;

static void *reader(void *arg)
{
	uintptr_t wrong = 0;

	(void)arg;
	while (!atomic_load(&stop))
		wrong += !keys_has(&shared, SPAN("stays")) || keys_has(&shared, SPAN("never"));
	return (void *)wrong;
}

/* Under ThreadSanitizer and AddressSanitizer this shows a reader that sees a table being freed. */
static void swaps_while_others_read(void **state)
{
	struct key_table t;
	pthread_t threads[3];
	void *wrong;

	(void)state;
	assert_int_equal(load(&t, "stays\n"), PD_OK);
	keys_swap(&shared, &t);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, reader, NULL), 0);
	for (int i = 0; i < 200; i++) {
		assert_int_equal(key_table_read(&t, path, NULL), PD_OK);
		keys_swap(&shared, &t);
	}
	atomic_store(&stop, true);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(pthread_join(threads[i], &wrong), 0);
		assert_null(wrong);
	}
	keys_release(&shared);
	(void)unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hash_vectors),
		cmocka_unit_test(hash_depends_on_its_key),
		cmocka_unit_test(files),
		cmocka_unit_test(swaps_while_others_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
