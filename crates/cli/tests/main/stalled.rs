//! A network between the server and its follower that holds everything up for a while.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::archive::server;
use super::postgres::{NOW, ask, world_of};

/// Passes on what the server sends, and after `after_bytes` of one connection nothing for a while, once.
fn proxy(to_port: u16, after_bytes: u64, stall: Duration) -> (u16, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let stalled = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stalled);
    // Ends with the test's process.
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(("127.0.0.1", to_port)).unwrap();
            let (mut up_from, mut up_to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut up_from, &mut up_to));
            let told = Arc::clone(&told);
            std::thread::spawn(move || down(server, client, (after_bytes, stall), &told));
        }
    });
    (port, stalled)
}

fn down(mut from: TcpStream, mut to: TcpStream, (after_bytes, stall): (u64, Duration), told: &AtomicBool) {
    let mut buffer = vec![0; 65536];
    let mut passed_bytes = 0;
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        passed_bytes += count as u64;
        if passed_bytes > after_bytes && !told.swap(true, Ordering::SeqCst) {
            // The fault itself: nothing waits for this.
            std::thread::park_timeout(stall);
        }
        if to.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

#[test]
fn a_stream_that_is_held_up_never_passes_for_one_that_has_everything() {
    let server = server(15);
    let mut world = world_of(&server);
    world.backup("shop");
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    server.psql("CREATE TABLE bulk AS SELECT g, md5(g::text) FROM generate_series(1, 400000) g");
    server.psql("INSERT INTO ledger (n) VALUES (77)");
    let witnessed = server.psql(NOW);
    let (port, stalled) = proxy(server.port(), 4 << 20, Duration::from_millis(2500));
    let direct = server.url("postgres");
    let through = direct.replace(&server.port().to_string(), &port.to_string());
    world.env.retain(|(name, _)| name != "SHOP_URL");
    world.env.push(("SHOP_URL".to_owned(), through));
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    assert!(stalled.load(Ordering::SeqCst), "nothing was held up");
    // What it says is held up to a moment is there.
    world.run(&["restore", "shop", "--to", "back", "--at", witnessed.trim()]).expect(0);
    assert_eq!(ask(&server, &world.path("back"), "SELECT count(*) FROM ledger WHERE n = 77"), "1");
}
