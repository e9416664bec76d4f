//! Applications that are asked over HTTP on stores that were restored together, and compared with how fast they were.

use std::fs;

use serde_json::Value;

use super::tree;
use super::world::{World, texts};

/// Answers from an SQLite file, as slowly as a file beside the policy says.
const SHOP: &str = r#"
import http.server, os, socketserver, sqlite3, time
class Shop(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        time.sleep(float(open("pause").read()))
        try:
            store = sqlite3.connect("file:" + os.environ["STORE_ORDERS"] + "?mode=ro", uri=True)
            count = store.execute("SELECT count(*) FROM orders").fetchone()[0]
            files = len(os.listdir(os.environ["STORE_UPLOADS"]))
            status, body = 200, ("%d orders, %d files" % (count, files)).encode()
        except (OSError, sqlite3.Error) as error:
            status, body = 503, str(error).encode()
        self.send_response(status); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words): pass
class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer): daemon_threads = True
Server(os.environ["HTTP_SOCKET"], Shop).serve_forever()
"#;

/// The first answer of each process takes longer than any machine's noise.
const FIRST: &str = "def do_GET(self):
        if not hasattr(Shop, 'warm'): Shop.warm = time.sleep(0.4)";

fn pause(world: &World, seconds: &str) {
    tree::write(&world.path("pause"), seconds.as_bytes());
}

fn front(report: &Value) -> &Value {
    let rules = report["agreement"].as_array().unwrap();
    rules.iter().find(|rule| rule["id"] == "application/front").unwrap()
}

#[test]
fn an_application_is_asked_over_http_and_compared_with_its_baseline() {
    let section = "\n[application.front]\ncommand = [\"python3\", \"shop.py\"]\nstores = [\"orders\", \"uploads\"]\n\
                   http = [\"/ 200 2000 orders\"]\n";
    let mut world = World::of_everything();
    world.policy.push_str(section);
    world.write_policy(&world.policy);
    tree::write(&world.path("shop.py"), SHOP.as_bytes());
    pause(&world, "0");
    world.run(&["backup"]).expect(0);

    let report = world.json(&["drill", "--all"], 0);
    assert_eq!(front(&report)["canary_caught"], true, "{report:#}");
    assert_eq!(
        (&report["answers"][0]["path"], &report["answers"][0]["requests"]),
        (&"/".into(), &200.into())
    );
    assert!(report["answers"][0]["baseline_p95_ms"].is_null() && report["baseline"].is_null(), "{report:#}");
    let said = world.run(&["drill", "--all"]).expect(0).stdout;
    assert!(said.contains("not all answers have a baseline"), "{said}");

    let recorded = world.json(&["drill", "--all", "--baseline"], 0);
    assert_eq!(recorded["baseline"], true);
    let baseline = recorded["answers"][0]["p95_ms"].as_f64().unwrap();

    // What is slow only at first is not slower; and another program is not compared.
    tree::write(&world.path("shop.py"), SHOP.replace("def do_GET(self):", FIRST).as_bytes());
    world.json(&["drill", "--all"], 0);
    let other = world.policy.replace("\"python3\", \"shop.py\"", "\"python3\", \"shop.py\", \"again\"");
    world.write_policy(&other);
    let report = world.json(&["drill", "--all"], 0);
    assert!(report["answers"][0]["baseline_p95_ms"].is_null(), "{report:#}");
    world.write_policy(&world.policy);
    tree::write(&world.path("shop.py"), SHOP.as_bytes());

    // Slower than that, and by more than a machine with other work makes it.
    pause(&world, "0.1");
    let slow = world.json(&["drill", "--all"], 5);
    assert_eq!(slow["answers"][0]["baseline_p95_ms"], baseline, "{slow:#}");
    assert_eq!(texts(&slow["findings"], "code"), ["application/front"]);
    let measured = front(&slow)["measured"].as_str().unwrap();
    assert!(measured.contains("1 of 1 questions slower than the baseline allows"), "{measured}");
    assert_eq!(world.promise("orders", "drill").0, "broken");

    // Whoever accepts that records it anew.
    world.json(&["drill", "--all", "--baseline"], 0);
    let report = world.json(&["drill", "--all"], 0);
    assert!(report["answers"][0]["baseline_p95_ms"].as_f64().unwrap() > 100.0, "{report:#}");

    // A record that cannot be read may have been the baseline: the drill is done, and says so.
    let records = world.path("state/evidence/records");
    let record = records.join(&tree::files(&records)[0]);
    let bytes = fs::read(&record).unwrap();
    world.write_policy(&other);
    tree::write(&record, &bytes[..bytes.len() / 2]);
    let report = world.json(&["drill", "--all"], 5);
    assert_eq!(texts(&report["findings"], "code"), ["drill.baseline"]);
    tree::write(&record, &bytes);
    world.write_policy(&world.policy);

    let refused = world.run(&["drill", "orders", "--baseline"]).expect(2);
    assert!(refused.stderr.contains("asks no application over HTTP"), "{refused:?}");
    world.write_policy(&world.policy.replace("/ 200 2000 orders", "orders"));
    let refused = world.run(&["check"]).expect(2);
    assert!(refused.stderr.contains("no path of a request"), "{refused:?}");
}
