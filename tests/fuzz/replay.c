/*
 * The main of a fuzz target in the normal test run: each file of the target's corpus, and every
 * beginning of it, is one input. So the corpus keeps its worth on machines without libFuzzer, under
 * gcc, and under TSan.
 *
 * Beginnings matter because parsers see messages in pieces; each is copied into memory of exactly
 * its size, so that the address sanitizer notices a read of one byte too many. The corpus is found
 * by the program's own name: fuzz_head replays tests/fuzz/corpus/head, relative to the repository
 * root. Output is TAP.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"

#define FILE_MAX       (16u << 20)
#define BEGINNINGS_MAX 512u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));

static int replay_bytes(const char *data, size_t n)
{
	uint8_t *exact = malloc(n ? n : 1);

	if (!exact)
		return -1;
	if (n)
		memcpy(exact, data, n);
	LLVMFuzzerTestOneInput(exact, n);
	free(exact);
	return 0;
}

static int load(const char *path, struct buf *b)
{
	FILE *f = fopen(path, "rb");
	char piece[4096];
	size_t got;
	int err = 0;

	if (!f)
		return PD_EIO;
	while (!err && (got = fread(piece, 1, sizeof(piece), f)) > 0)
		err = buf_append(b, piece, got);
	if (!err && ferror(f))
		err = PD_EIO;
	fclose(f);
	return err;
}

/* The file and its beginnings; long files are cut at evenly spaced places. */
static int replay_file(const char *path)
{
	struct buf b;
	size_t step;
	int err;

	buf_init(&b, FILE_MAX);
	err = load(path, &b);
	step = b.len / BEGINNINGS_MAX + 1;
	for (size_t n = 0; !err && n < b.len; n += step)
		err = replay_bytes(b.data, n);
	if (!err)
		err = replay_bytes(b.data, b.len);
	buf_release(&b);
	return err;
}

static int visible(const struct dirent *e)
{
	return e->d_name[0] != '.';
}

int main(int argc, char **argv)
{
	const char *name = strrchr(argv[0], '/');
	char dir[512], path[1024];
	struct dirent **entry = NULL;
	int n, failed = 0;

	if (LLVMFuzzerInitialize)
		LLVMFuzzerInitialize(&argc, &argv);
	name = name ? name + 1 : argv[0];
	if (strncmp(name, "fuzz_", 5) == 0)
		name += 5;
	snprintf(dir, sizeof(dir), "tests/fuzz/corpus/%s", name);
	n = scandir(dir, &entry, visible, alphasort);
	if (n <= 0) {
		printf("1..1\nnot ok 1 - %s holds no corpus\n", dir);
		return 1;
	}
	printf("1..%d\n", n);
	for (int i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, entry[i]->d_name);
		bool ok = replay_file(path) == 0;
		failed += !ok;
		printf("%sok %d - %s\n", ok ? "" : "not ", i + 1, path);
		fflush(stdout);
		free(entry[i]);
	}
	free(entry);
	return failed ? 1 : 0;
}
