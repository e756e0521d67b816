"""The most probable letters need not make the most probable name: a model of three names."""

NAMES = {"ab": 0.3, "ac": 0.3, "bd": 0.4}


def probability(beginning):
    return sum(p for name, p in NAMES.items() if name.startswith(beginning))


written = ""
for _ in range(2):
    written = max((written + letter for letter in "abcd"), key=probability)
print(f"{NAMES[written]} against {max(NAMES.values())}")
