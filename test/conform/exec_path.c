/* SPDX-License-Identifier: Apache-2.0 */
/* Scripts and their interpreters, and the ways in which the file of an exec can be wrong. */
#include <elf.h>

#include "test/conform/exec.h"

HELPER(echo)
{
	for (int i = 1; i < argc; i++)
		printf("%s%s", i > 1 ? "|" : "", argv[i]);
	return 0;
}

HELPER(count)
{
	printf("%d", argc - 1);
	return 0;
}

TEST(script_arguments)
{
	char script[PATH_MAX + 64], out[512], want[512];
	char *argv[] = { "ignored", "a", "b c", NULL };

	snprintf(script, sizeof(script), "#!%s --helper\n", conform_self);
	/* The interpreter gets: "--helper" as one argument, the script's path, then a, b c. */
	CHECK_OK(mkdir("d", 0755));
	put_script("d/echo", script);
	CHECK_OK(chdir("d"));
	snprintf(want, sizeof(want), "a|b c");
	CHECK_EQ(run_argv("echo", argv, NULL, out, sizeof(out)), 0);
	CHECK_STR(out, want);
}

TEST(script_one_optional_argument)
{
	char script[PATH_MAX + 64], out[512];
	char *argv[] = { "s", "tail", NULL };

	/* Blanks inside the argument stay: "--helper echo" is a single string, so no helper runs
	 * and the program takes it for the name of a test that does not exist.
	 */
	snprintf(script, sizeof(script), "#!  %s \t --list x \t\n", conform_self);
	put_script("s", script);
	CHECK_EQ(run_argv("./s", argv, NULL, out, sizeof(out)), 0);
	CHECK(strstr(out, "# 0 passed"));
}

TEST(script_without_newline)
{
	char script[PATH_MAX + 64], out[64];
	char *argv[] = { "s", "z", NULL };

	snprintf(script, sizeof(script), "#!%s --helper", conform_self);
	put_script("count", script);
	CHECK_EQ(run_argv("count", argv, NULL, out, sizeof(out)), 0);
	CHECK_STR(out, "1");
}

static void nested_scripts(int levels)
{
	char script[PATH_MAX + 64], name[16];

	for (int i = 0; i < levels; i++) {
		if (i == 0)
			snprintf(script, sizeof(script), "#!%s --list\n", conform_self);
		else
			snprintf(script, sizeof(script), "#!%s/nested%d\n", conform_base, i - 1);
		snprintf(name, sizeof(name), "../nested%d", i);
		put_script(name, script);
	}
}

TEST(script_nested_five_levels)
{
	char out[16384], *argv[] = { "x", NULL };

	nested_scripts(5);
	CHECK_EQ(run_argv("../nested4", argv, NULL, out, sizeof(out)), 0);
}

TEST(script_nested_too_deep)
{
	nested_scripts(7);
	CHECK_EQ(exec_error("../nested6"), ELOOP);
	CHECK_EQ(exec_error("../nested5"), ELOOP);
}

TEST(script_of_itself)
{
	char script[PATH_MAX + 64];

	snprintf(script, sizeof(script), "#!%s/script_of_itself/loop\n", conform_base);
	put_script("loop", script);
	CHECK_EQ(exec_error("./loop"), ELOOP);
}

TEST(script_interpreter_missing)
{
	put_script("s", "#!/no/such/interpreter\n");
	CHECK_EQ(exec_error("./s"), ENOENT);
}

TEST(script_interpreter_not_executable)
{
	PUT_FILE("interp", "x");
	put_script("s", "#!interp\n");
	CHECK_EQ(exec_error("./s"), EACCES);
}

TEST(script_empty_interpreter)
{
	put_script("s", "#!\n");
	CHECK_EQ(exec_error("./s"), ENOEXEC);
	put_script("t", "#!   \t \n");
	CHECK_EQ(exec_error("./t"), ENOEXEC);
}

TEST(enoexec)
{
	put_script("text", "echo hello\n");
	CHECK_EQ(exec_error("./text"), ENOEXEC);
	put_script("empty", "");
	CHECK_EQ(exec_error("./empty"), ENOEXEC);
	put_script("short", "\177ELF");
	CHECK_EQ(exec_error("./short"), ENOEXEC);
}

TEST(elf_of_another_machine)
{
	char head[128];
	int in = CHECK_OK(open(conform_self, O_RDONLY)), out;

	CHECK_EQ(read(in, head, sizeof(head)), sizeof(head));
	((Elf64_Ehdr *)head)->e_machine = EM_AARCH64;
	out = CHECK_OK(open("arm", O_WRONLY | O_CREAT, 0755));
	CHECK_EQ(write(out, head, sizeof(head)), sizeof(head));
	CHECK_OK(close(out));
	CHECK_EQ(exec_error("./arm"), ENOEXEC);
}

TEST(elf_truncated_program_headers)
{
	char head[80];
	int in = CHECK_OK(open(conform_self, O_RDONLY)), out;

	CHECK_EQ(read(in, head, sizeof(head)), sizeof(head));
	out = CHECK_OK(open("cut", O_WRONLY | O_CREAT, 0755));
	CHECK_EQ(write(out, head, sizeof(head)), sizeof(head));
	CHECK_OK(close(out));
	CHECK(exec_error("./cut") > 0);
}

TEST(path_errors)
{
	CHECK_EQ(exec_error("missing"), ENOENT);
	CHECK_EQ(exec_error(""), ENOENT);
	PUT_FILE("file", "");
	CHECK_EQ(exec_error("file/x"), ENOTDIR);
	CHECK_OK(symlink("loop", "loop"));
	CHECK_EQ(exec_error("loop"), ELOOP);
	CHECK_OK(symlink("nowhere", "dangling"));
	CHECK_EQ(exec_error("dangling"), ENOENT);
}

TEST(not_executable)
{
	PUT_FILE("plain", "#!/bin/sh\n");
	CHECK_EQ(exec_error("./plain"), EACCES);
	CHECK_OK(mkdir("dir", 0755));
	CHECK_EQ(exec_error("./dir"), EACCES);
	CHECK_EQ(exec_error("/dev/null"), EACCES);
	CHECK_OK(mkfifo("fifo", 0755));
	CHECK_EQ(exec_error("./fifo"), EACCES);
}

TEST(search_permission)
{
	char script[PATH_MAX + 64];
	pid_t pid;

	NEED_ROOT();
	CHECK_OK(mkdir("closed", 0700));
	snprintf(script, sizeof(script), "#!%s\n", conform_self);
	put_script("closed/s", script);
	put_script("other", script);
	CHECK_OK(chmod("other", 0700));
	pid = FORK();
	if (!pid) {
		BECOME_NOBODY();
		CHECK_EQ(exec_error("closed/s"), EACCES);
		CHECK_EQ(exec_error("./other"), EACCES);
		_exit(0);
	}
	JOIN(pid);
}

TEST(name_too_long)
{
	char name[5000];

	memset(name, 'n', 300);
	name[300] = 0;
	CHECK_EQ(exec_error(name), ENAMETOOLONG);
	memset(name, '/', 4999);
	name[4999] = 0;
	CHECK_EQ(exec_error(name), ENAMETOOLONG);
}
