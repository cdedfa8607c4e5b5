# SPDX-License-Identifier: Apache-2.0
"""python3's regression tests (python3 -m test), every result written down as it comes.

usage: python_record.py FILE ARGUMENTS-OF-REGRTEST…

The suite's own reports leave out which test hung, failing subtests' names and errors of set-up code; so
its result class is extended here. FILE gets one line per event, as soon as it happens:

    start NAME
    ok|skip|fail|error NAME<TAB>message

A name is the test's id without the leading "test." (test_os.FileTests.test_read); a test with failing
subtests counts once, and what failed outside a test carries the class's or module's name. The file is
opened for each line, so a test that counts, closes or exhausts file descriptors sees none of it.
"""
import os
import re
import sys


def extend(base, path):
    def write(what, name, message=""):
        name = re.sub(r"^test\.", "", name)
        # setUpClass (test.test_x.Class) -> test_x.Class.setUpClass
        name = re.sub(r"^(\w+) \((?:test\.)?(.*)\)$", r"\2.\1", name)
        message = " ".join(str(message).split())[:300]
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(fd, f"{what} {name}\t{message}\n".encode("utf-8", "replace"))
        finally:
            os.close(fd)

    def last(err):
        return f"{err[0].__name__}: {err[1]}"

    class Recorder(base):
        def startTest(self, test):
            self.subtests_bad = None
            write("start", test.id())
            super().startTest(test)

        def stopTest(self, test):
            if self.subtests_bad:
                write(*self.subtests_bad)
            super().stopTest(test)

        def addSuccess(self, test):
            write("ok", test.id())
            super().addSuccess(test)

        def addExpectedFailure(self, test, err):
            write("ok", test.id())
            super().addExpectedFailure(test, err)

        def addSkip(self, test, reason):
            # A subtest's skip is no result of the test.
            if not hasattr(test, "test_case"):
                write("skip", test.id(), reason)
            super().addSkip(test, reason)

        def addFailure(self, test, err):
            write("fail", test.id(), last(err))
            super().addFailure(test, err)

        def addError(self, test, err):
            write("error", test.id(), last(err))
            super().addError(test, err)

        def addUnexpectedSuccess(self, test):
            write("fail", test.id(), "passes, but the suite expects a failure")
            super().addUnexpectedSuccess(test)

        def addSubTest(self, test, subtest, err):
            if err is not None and self.subtests_bad is None:
                what = "fail" if issubclass(err[0], test.failureException) else "error"
                self.subtests_bad = (what, test.id(), last(err) + " in subtest " + subtest._subDescription())
            super().addSubTest(test, subtest, err)

    return Recorder


if __name__ == "__main__":
    from test.support import testresult

    testresult.RegressionTestResult = extend(testresult.RegressionTestResult, sys.argv[1])
    del sys.argv[1]

    from test.libregrtest import main

    main()
