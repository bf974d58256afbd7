# Mathematics, bytes and numbers in text: every value in full, then Python's own tests of the same.
import cmath, math, random, struct, sys, unittest

values = [0.0, -0.0, 5e-324, 2.2250738585072014e-308, 1e-300, 1e-20, 1e-8, 0.1, 0.5, 0.75, 1 - 2**-53, 1.0,
          1 + 2**-52, 1.5, 2.0, math.e, 3.0, math.pi, 10.0, 100.5, 709.78, 1e5, 1e10, 2.0**52 + 0.5, 2.0**63, 1e22,
          1e100, 1.7976931348623157e308, math.inf, math.nan]
values += [-value for value in values[2:-1]]
random.seed(20240101)
values += [random.uniform(-20, 20) for _ in range(24)]
values += [math.ldexp(random.random(), random.randint(-1070, 1020)) for _ in range(16)]


def show(name, function, *arguments):
    try:
        result = repr(function(*arguments))
    except Exception as error:
        result = type(error).__name__
    print(name, *map(repr, arguments), "=", result)


one = """acos acosh asin asinh atan atanh cbrt ceil cos cosh degrees erf erfc exp exp2 expm1 fabs floor frexp gamma
isqrt lgamma log log10 log1p log2 modf radians sin sinh sqrt tan tanh trunc ulp""".split()
for name in one:
    for value in values:
        show(name, getattr(math, name), value)
for name in "atan2 copysign fmod hypot nextafter pow remainder".split():
    for at, value in enumerate(values):
        for step in (1, 7, 29):
            show(name, getattr(math, name), value, values[(at * step + 5) % len(values)])
for name in "acos asinh atan cosh exp log sqrt tan tanh".split():
    for at in range(0, len(values), 3):
        show("complex " + name, getattr(cmath, name), complex(values[at], values[(at * 5 + 2) % len(values)]))
for count in (0, 1, 20, 170):
    print(count, math.factorial(count), math.comb(2 * count, count) % 10**9, math.perm(count + 5, 5))
print(math.fsum(value for value in values if math.isfinite(value) and abs(value) < 1e200))
print(math.fsum([0.1] * 10), sum([0.1] * 10), math.prod(range(1, 40)), math.dist((1, 2.5), (3, -4)))

for value in values:
    print("%r %.0f %.3f %e %.16g %g" % ((value,) + (value,) * 5), value.hex(), struct.pack("<d", value).hex())
    show("int", int, value)
    show("ratio", value.as_integer_ratio)
    show("single", lambda v: struct.unpack("<f", struct.pack("<f", v))[0], value)
    show("half", lambda v: struct.unpack("<e", struct.pack("<e", v))[0], value)
    show("round", lambda v: [round(v, digits) for digits in (-2, 0, 3)], value)
for text in "1e-400 4.9e-324 2.4703282292062327e-324 2.4703282292062328e-324 0.1 1e23 9007199254740993 1.7976931348623158e308 1.7976931348623159e308".split():
    print(text, repr(float(text)))
for order in "<>=@!":
    for code, value in [("b", -7), ("H", 65535), ("i", -(2**31)), ("I", 2**32 - 1), ("q", -(2**63)), ("Q", 2**64 - 1), ("?", True)]:
        packed = struct.pack(order + "c" + code, b"x", value)
        print(order, code, packed.hex(), struct.unpack(order + "c" + code, packed))
show("overflow", struct.pack, "<f", 1e300)
show("overflow", struct.pack, "<e", 70000.0)

number = 3**2000
print(number % 10**40, number >> 3000, math.isqrt(number) % 10**30, pow(7, number, 10**30 + 57), divmod(-number, 10**900 + 7)[1] % 10**20)
print(hash(1.5), hash(2**100), hash(math.inf), hash(complex(1, 2.5)), (0.1 + 0.2).hex(), 7.0 // -0.3, -7.5 % 2)
print([random.getrandbits(64) for _ in range(3)], random.gauss(0, 1), random.sample(range(1000), 5))

sys.stdout.flush()
names = ["test.test_math", "test.test_struct", "test.test_float", "test.test_cmath"]
# Two thirds of the time go into these, which do what others do, only more often.
long = "testFsum testDist testRemainder testFactorial testIsqrt test_prod test_integers".split()


def short(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from short(test)
        elif test.id().split(".")[-1] not in long or sys.argv[1:] == ["all"]:
            yield test


result = unittest.TestResult()
unittest.TestSuite(short(unittest.defaultTestLoader.loadTestsFromNames(names))).run(result)
for test, trace in result.failures + result.errors:
    print("FAILED", test, trace)
print("tests", result.testsRun, "failed", len(result.failures) + len(result.errors), "skipped", len(result.skipped))
