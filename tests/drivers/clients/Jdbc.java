import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.SQLException;
import java.util.Properties;

/** Connects with pgjdbc. */
public class Jdbc {
    public static void main(String[] arguments) throws Exception {
        System.out.println("pgjdbc " + org.postgresql.util.DriverInfo.DRIVER_VERSION);
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] fields = line.split("\t", -1);
            Properties properties = new Properties();
            properties.setProperty("user", "driver");
            properties.setProperty("sslmode", fields[1]);
            if (!fields[2].isEmpty()) {
                properties.setProperty("sslNegotiation", fields[2]);
            }
            if (fields[1].startsWith("verify")) {
                properties.setProperty("sslrootcert", fields[3]);
            }
            String answer;
            try (Connection connection = DriverManager.getConnection("jdbc:postgresql://" + fields[0] + "/postgres", properties)) {
                var result = connection.createStatement().executeQuery("show port");
                result.next();
                answer = "port " + result.getString(1) + "\t\t";
            } catch (SQLException error) {
                answer = error.getClass().getSimpleName() + "\t" + (error.getSQLState() == null ? "" : error.getSQLState()) + "\t"
                    + String.valueOf(error.getMessage()).replaceAll("\\s+", " ");
            }
            System.out.println(answer);
        }
    }
}
