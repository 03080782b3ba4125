import java.io.*;
import java.lang.ref.SoftReference;
import java.lang.reflect.Constructor;
import java.nio.ByteBuffer;
import java.util.*;
import java.util.concurrent.*;

/** Twelve leaks; `java Leaks NAME` runs the one until the heap is full. */
public final class Leaks {
    static class Payload { final byte[] body = new byte[200]; final String name; Payload next; Payload(int i) { name = "payload-" + i; } }
    static class Registry { static final Map<String, Payload> CACHE = new HashMap<String, Payload>(); }
    static class Session { final Map<String, Object> attributes = new HashMap<String, Object>(); }
    static class SessionStore { final Map<String, Session> sessions = new ConcurrentHashMap<String, Session>(); }
    static class App { static SessionStore store = new SessionStore(); }
    static class Worker { static final ThreadLocal<List<Payload>> CONTEXT = new ThreadLocal<List<Payload>>() { protected List<Payload> initialValue() { return new ArrayList<Payload>(); } }; }
    interface Listener { void on(); }
    static class Bus { final List<Listener> listeners = new CopyList(); void add(Listener l) { listeners.add(l); } }
    static class CopyList extends ArrayList<Listener> {}
    static class Widget implements Listener { final byte[] image = new byte[500]; public void on() {} }
    static class Chain { Payload head; }
    static class Buffers { final List<ByteBuffer> pooled = new ArrayList<ByteBuffer>(); }
    static class Heavy { final byte[] data = new byte[300]; @Override protected void finalize() throws Throwable { Thread.sleep(100000); } }
    static class SoftCache { static final Map<Integer, SoftReference<Payload>> ENTRIES = new HashMap<Integer, SoftReference<Payload>>(); }
    static class IndexA { final Map<String, Payload> byName = new HashMap<String, Payload>(); }
    static class IndexB { final Map<Integer, Payload> byNumber = new TreeMap<Integer, Payload>(); }
    static class Indexes { static final IndexA A = new IndexA(); static final IndexB B = new IndexB(); }
    static class Pool { static ThreadPoolExecutor executor; static Bus bus = new Bus(); static Chain chain = new Chain(); static Buffers buffers = new Buffers(); static Object kept; }
    static class Task implements Runnable { final byte[] request = new byte[400]; public void run() { try { Thread.sleep(1000000); } catch (InterruptedException e) { } } }
    static class Loader extends ClassLoader {
        final byte[] code; Loader(byte[] code) { super(Leaks.class.getClassLoader()); this.code = code; }
        Class<?> load() { return defineClass("Leaks$Plugin", code, 0, code.length); }
    }
    public static class Plugin { static final byte[] TABLE = new byte[20000]; public Plugin() {} }
    static class Plugins { static final List<Object> LOADED = new ArrayList<Object>(); }

    static void local() { List<Payload> batch = new ArrayList<Payload>(); for (int i = 0; ; i++) batch.add(new Payload(i)); }

    static void run(String name) throws Exception {
        if (name.equals("static-map")) for (int i = 0; ; i++) Registry.CACHE.put("k" + i, new Payload(i));
        if (name.equals("thread-local")) { ExecutorService pool = Executors.newFixedThreadPool(4); for (int n = 0; n < 4; n++) pool.submit(new Runnable() { public void run() { for (int i = 0; ; i++) Worker.CONTEXT.get().add(new Payload(i)); } }); pool.shutdown(); pool.awaitTermination(1, TimeUnit.HOURS); }
        if (name.equals("session-map")) for (int i = 0; ; i++) { Session s = new Session(); for (int k = 0; k < 5; k++) s.attributes.put("a" + k, new Payload(k)); App.store.sessions.put("s" + i, s); }
        if (name.equals("executor-queue")) { Pool.executor = new ThreadPoolExecutor(1, 1, 1, TimeUnit.HOURS, new LinkedBlockingQueue<Runnable>()); for (;;) Pool.executor.execute(new Task()); }
        if (name.equals("listeners")) for (;;) Pool.bus.add(new Widget());
        if (name.equals("linked-list")) for (int i = 0; ; i++) { Payload p = new Payload(i); p.next = Pool.chain.head; Pool.chain.head = p; }
        if (name.equals("class-loaders")) {
            InputStream in = Leaks.class.getResourceAsStream("Leaks$Plugin.class"); ByteArrayOutputStream out = new ByteArrayOutputStream(); for (int b = in.read(); b >= 0; b = in.read()) out.write(b);
            for (;;) { Constructor<?> c = new Loader(out.toByteArray()).load().getDeclaredConstructor(); c.setAccessible(true); Plugins.LOADED.add(c.newInstance()); } }
        if (name.equals("byte-buffers")) for (;;) Pool.buffers.pooled.add(ByteBuffer.allocate(50000));
        if (name.equals("finalizers")) for (;;) { new Heavy(); }
        if (name.equals("soft-cache")) for (int i = 0; ; i++) { SoftCache.ENTRIES.put(i, new SoftReference<Payload>(new Payload(i))); }
        if (name.equals("local")) { Thread t = new Thread(new Runnable() { public void run() { local(); } }, "batch-import"); t.start(); t.join(); }
        if (name.equals("two-maps")) for (int i = 0; ; i++) { Payload p = new Payload(i); Indexes.A.byName.put(p.name, p); Indexes.B.byNumber.put(i, p); }
        throw new IllegalArgumentException(name);
    }
    public static void main(String[] args) throws Exception { run(args[0]); }
}
