import json, pathlib, sys
seed, rate, out = int(sys.argv[1]), float(sys.argv[2]), pathlib.Path(sys.argv[3])
out.mkdir(parents=True, exist_ok=True)
(out / "result.json").write_text(json.dumps({"seed": seed, "rate": rate}))
