import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.io.PrintWriter;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.logging.Logger;
import java.util.stream.Collectors;
import javax.sql.DataSource;

/** pgjdbc with HikariCP. The environment and the account are as in load.py. */
public class Hikari {
    static final Map<String, String> ENVIRONMENT = System.getenv();
    static final boolean SAFE = "yes".equals(ENVIRONMENT.get("CLIENT_SAFE"));
    static final Map<String, Integer> ERRORS = new TreeMap<>();
    static int begun, completed, rows;
    static double longest;
    static volatile boolean over;

    /** Logs in, and counts it. */
    static class Logins implements DataSource {
        public Connection getConnection() throws SQLException {
            Properties properties = new Properties();
            properties.setProperty("user", "postgres");
            properties.setProperty("password", "rig");
            properties.setProperty("ApplicationName", ENVIRONMENT.get("CLIENT_NAME"));
            // With it, the name is in the login; otherwise it follows as a statement.
            properties.setProperty("assumeMinServerVersion", "13");
            String authority = ENVIRONMENT.getOrDefault("CLIENT_CA", "");
            properties.setProperty("sslmode", authority.isEmpty() ? "disable" : "verify-full");
            if (!authority.isEmpty()) {
                properties.setProperty("sslrootcert", authority);
            }
            synchronized (ERRORS) {
                begun++;
            }
            String url = "jdbc:postgresql://" + ENVIRONMENT.get("CLIENT_HOSTS") + ":" + ENVIRONMENT.get("CLIENT_PORTS") + "/postgres";
            Connection connection = DriverManager.getConnection(url, properties);
            synchronized (ERRORS) {
                completed++;
            }
            return connection;
        }

        public Connection getConnection(String user, String password) throws SQLException {
            return getConnection();
        }

        public PrintWriter getLogWriter() {
            return null;
        }

        public void setLogWriter(PrintWriter writer) {}

        public void setLoginTimeout(int seconds) {}

        public int getLoginTimeout() {
            return 0;
        }

        public Logger getParentLogger() {
            return Logger.getGlobal();
        }

        public <T> T unwrap(Class<T> kind) {
            return null;
        }

        public boolean isWrapperFor(Class<?> kind) {
            return false;
        }
    }

    public static void main(String[] arguments) throws Exception {
        HikariConfig config = new HikariConfig();
        config.setDataSource(new Logins());
        config.setMaximumPoolSize(3);
        if (SAFE) {
            config.setConnectionTimeout(90_000);
        }
        HikariDataSource pool = new HikariDataSource(config);
        List<Thread> workers = new ArrayList<>();
        for (int index = 0; index < 3; index++) {
            workers.add(new Thread(() -> work(pool)));
        }
        workers.forEach(Thread::start);
        System.in.readAllBytes();
        over = true;
        for (Thread worker : workers) {
            worker.join();
        }
        String errors = ERRORS.entrySet().stream().map(one -> "\"" + one.getKey() + "\": " + one.getValue()).collect(Collectors.joining(", "));
        System.out.printf("{\"begun\": %d, \"completed\": %d, \"rows\": %d, \"longest\": %.3f, \"errors\": {%s}}%n", begun, completed, rows, longest, errors);
        System.exit(0);
    }

    static void work(DataSource pool) {
        while (!over) {
            long began = System.nanoTime();
            try (Connection connection = pool.getConnection(); var statement = connection.createStatement()) {
                statement.execute("insert into driven (client) values ('" + ENVIRONMENT.get("CLIENT_NAME") + "')");
                synchronized (ERRORS) {
                    rows++;
                    longest = Math.max(longest, (System.nanoTime() - began) / 1e9);
                }
            } catch (SQLException error) {
                synchronized (ERRORS) {
                    String state = error.getSQLState() == null ? "" : " " + error.getSQLState();
                    ERRORS.merge(error.getClass().getSimpleName() + state, 1, Integer::sum);
                }
            }
            try {
                Thread.sleep(30);
            } catch (InterruptedException interrupted) {
                return;
            }
        }
    }
}
